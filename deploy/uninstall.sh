#!/bin/sh
# Removes what install.sh has installed. Settings and data stay, unless --purge is given. Service and user
# of the system, its settings and its data are those of the prefix that the unit names, and of no other.
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
prefix=$(realpath -ms -- "$prefix")
# Nothing is removed from a folder that is not of install.sh.
{ [ -L "$prefix/current" ] && [ -d "$prefix/releases" ]; } ||
    fail "nothing is installed in $prefix; give --prefix" "$prefix 中没有安装；请用 --prefix 指定"

unit=/etc/systemd/system/inkwell.service
if [ "$(id -u)" = 0 ] && grep -qsF "ExecStart=$prefix/current/" $unit; then
    service=yes settings=/etc/inkwell data=/var/lib/inkwell
else
    service=no settings=$prefix/etc data=$prefix/data
    [ $purge = no ] || [ -d "$settings" ] ||
        fail "no settings and data are in $prefix, and the service inkwell is not of it; nothing was removed, without --purge the releases will be" \
            "$prefix 中没有设置和数据，服务 inkwell 也不属于它；未删除任何内容，去掉 --purge 可只删除程序"
fi
if [ $service = yes ]; then
    if [ -d /run/systemd/system ]; then
        systemctl disable --now --quiet inkwell || true
    fi
    rm -f $unit
    [ $purge = no ] || rm -rf $unit.d
    [ ! -d /run/systemd/system ] || systemctl daemon-reload
fi
rm -rf "$prefix/releases" "$prefix/current"
if [ $purge = yes ]; then
    rm -rf "$settings" "$data"
    if [ $service = yes ] && id inkwell >/dev/null 2>&1; then userdel inkwell; fi
elif [ -d "$settings" ]; then
    printf 'kept: %s %s\n已保留：%s %s\n' "$settings" "$data" "$settings" "$data"
fi
rmdir "$prefix" 2>/dev/null || true
