#!/bin/sh
# Removes what install.sh has installed. Settings and data stay, unless --purge is given.
set -eu

fail() {
    printf 'error: %s\n错误：%s\n' "$1" "$2" >&2
    exit 1
}
prefix=/opt/inkwell purge=no
while [ $# -gt 0 ]; do
    case $1 in
    --prefix)
        [ $# -gt 1 ] || fail "--prefix needs a value" "--prefix 需要一个值"
        prefix=$2
        shift
        ;;
    --purge) purge=yes ;;
    *)
        printf 'usage: uninstall.sh [--prefix DIR] [--purge]\n用法：--purge 同时删除设置和数据\n' >&2
        exit 2
        ;;
    esac
    shift
done
# Nothing is removed from a folder that is not of install.sh.
{ [ -L "$prefix/current" ] && [ -d "$prefix/releases" ]; } ||
    fail "nothing is installed in $prefix; give --prefix" "$prefix 中没有安装；请用 --prefix 指定"

if [ "$(id -u)" = 0 ]; then
    settings=/etc/inkwell data=/var/lib/inkwell
    if [ -d /run/systemd/system ]; then
        systemctl disable --now --quiet inkwell || true
    fi
    rm -f /etc/systemd/system/inkwell.service
    [ ! -d /run/systemd/system ] || systemctl daemon-reload
else
    settings=$prefix/etc data=$prefix/data
fi
rm -rf "$prefix/releases" "$prefix/current"
if [ $purge = yes ]; then
    rm -rf "$settings" "$data"
    if [ "$(id -u)" = 0 ] && id inkwell >/dev/null 2>&1; then userdel inkwell; fi
else
    printf 'kept: %s %s\n已保留：%s %s\n' "$settings" "$data" "$settings" "$data"
fi
rmdir "$prefix" 2>/dev/null || true
