"""Commands that show what a server would find: this machine, these settings."""

from server.cli.invocation import Invocation
from server.config import as_toml


def doctor(given: Invocation) -> int:
    """Examine machine, models and settings.

    Status 1 if a server would not start with these settings or could lose what it acknowledged.
    """
    from server.doctor.examine import examine
    from server.doctor.facts import gather
    from server.doctor.findings import as_json, as_text, healthy
    from server.net.worker_pool import share_of
    from server.system.cpu import cpu_budget

    findings = examine(gather(share_of(given.config, cpu_budget())))
    if given.arguments.json:
        given.terminal.say_json(as_json(findings))
    else:
        given.terminal.out.write(as_text(findings, given.terminal.language))
    return 0 if healthy(findings) else 1


def show_config(given: Invocation) -> int:
    """Print a TOML file with the effective settings and where each comes from."""
    terminal = given.terminal
    terminal.out.write(as_toml(given.config, given.origins, terminal.language))
    return 0
