#!/bin/sh
# Removes what install.sh has installed, and nothing else. Settings and data stay, unless --purge is given. The
# system's service, user, settings and data belong to the prefix that the unit names, and are removed with that
# one only. PREFIX/.inkwell-install marks an installation and lists its releases.
set -eu
unset CDPATH
marked='inkwell installation 1'

# Messages have two arguments, English and Chinese; the locale chooses one.
case ${LC_ALL:-${LC_MESSAGES:-${LANG:-}}} in [zZ][hH]*) chinese=yes ;; *) chinese=no ;; esac
say() { if [ $chinese = yes ]; then printf '%s\n' "$2"; else printf '%s\n' "$1"; fi; }
fail() {
    say "error: $1" "错误：$2" >&2
    exit 1
}
# Without --prefix it is the installation that this script lies in.
prefix=$(dirname -- "$(realpath -ms -- "$0")") purge=no
case $prefix in
*/current) prefix=${prefix%/current} ;;
*/releases/*) prefix=${prefix%/releases/*} ;;
esac
[ -e "$prefix/.inkwell-install" ] || prefix=/opt/inkwell
while [ $# -gt 0 ]; do
    case $1 in
    --prefix)
        [ -n "${2:-}" ] || fail "--prefix needs a value, which is empty or missing" "--prefix 需要一个非空的值"
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
mark=$prefix/.inkwell-install
{ [ -f "$mark" ] && [ ! -L "$mark" ] && [ "$(head -n 1 "$mark")" = "$marked" ]; } ||
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
    if [ $purge = yes ]; then
        # Of `systemctl edit`.
        rm -f $unit.d/override.conf
        rmdir $unit.d 2>/dev/null || true
    fi
    [ ! -d /run/systemd/system ] || systemctl daemon-reload
fi
sed 1d "$mark" | while read -r release; do
    case $release in
    releases/*/* | releases/. | releases/..) ;;
    releases/?*) rm -rf "${prefix:?}/$release" ;;
    esac
done
for link in "$prefix/current" "$prefix/current.new"; do
    [ ! -L "$link" ] || rm -f "$link"
done
rmdir "$prefix/releases" 2>/dev/null || true
if [ $purge = yes ]; then
    # The files that the server and the installer make there. A link is removed, not what it leads to.
    for name in inkwell.toml inkwell.toml.new keys.jsonl; do rm -rf "${settings:?}/$name"; done
    for name in collections lock audit.jsonl keys.jsonl; do rm -rf "${data:?}/$name"; done
    rmdir "$settings" "$data" 2>/dev/null || true
    # A user of this name whom the installer did not make has another home.
    if [ $service = yes ] && [ "$(getent passwd inkwell | cut -d: -f 6)" = /var/lib/inkwell ]; then userdel inkwell; fi
elif [ -d "$settings" ]; then
    say "kept: $settings $data" "已保留：$settings $data"
fi
if [ $purge = yes ]; then
    for place in "$prefix/releases" "$prefix/current" "$settings" "$data"; do
        [ ! -e "$place" ] || say "left, because it is not of this installation: $place" "已保留（不属于本安装）：$place"
    done
fi
# The mark stays as long as there is something to install to or to purge later.
printf '%s\n' "$marked" >"$mark.new"
mv "$mark.new" "$mark"
if [ "$(ls -A "$prefix")" = "${mark##*/}" ]; then
    rm "$mark"
    rmdir "$prefix"
fi
