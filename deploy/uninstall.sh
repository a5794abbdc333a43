#!/bin/sh
# Removes what install.sh has installed. Settings and data stay, unless --purge is given. The system's service,
# user, settings and data belong to the prefix that the unit names, and are removed with that one only.
set -eu

# Messages have two arguments, English and Chinese; the locale chooses one.
case ${LC_ALL:-${LC_MESSAGES:-${LANG:-}}} in [zZ][hH]*) chinese=yes ;; *) chinese=no ;; esac
say() { if [ $chinese = yes ]; then printf '%s\n' "$2"; else printf '%s\n' "$1"; fi; }
fail() {
    say "error: $1" "错误：$2" >&2
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
        say "usage: uninstall.sh [--prefix DIR] [--purge]
  --purge  remove settings and data too" \
            "用法：uninstall.sh [--prefix 安装目录] [--purge]
  --purge  同时删除设置和数据" >&2
        exit 2
        ;;
    esac
    shift
done
prefix=$(realpath -ms -- "$prefix")
# Nothing is removed from a folder that install.sh has not made.
{ [ -L "$prefix/current" ] && [ -d "$prefix/releases" ]; } ||
    fail "nothing is installed in $prefix; give --prefix" "$prefix 中没有安装；请用 --prefix 指定"

unit=/etc/systemd/system/inkwell.service
if [ "$(id -u)" = 0 ] && grep -qsF "ExecStart=$prefix/current/" $unit; then
    service=yes settings=/etc/inkwell data=/var/lib/inkwell
else
    service=no settings=$prefix/etc data=$prefix/data
    [ $purge = no ] || [ -d "$settings" ] ||
        fail "$prefix holds no settings and data, and the service inkwell does not belong to it; nothing was removed. Without --purge, only the releases are removed" \
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
    say "kept: $settings $data" "已保留：$settings $data"
fi
rmdir "$prefix" 2>/dev/null || true
