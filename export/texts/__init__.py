"""The texts that an export is calibrated and verified on."""
