#!/bin/sh
# Installs this bundle, or upgrades in place: settings and data stay as they are. Uses no network.
#
# Each bundle gets a folder of its own under PREFIX/releases. PREFIX/current points to the one that serves,
# and moves only after the new one has embedded and found a text. The release before it is kept.
#
# PREFIX/.inkwell-install marks an installation and lists its releases. Without this mark PREFIX must be empty,
# and nothing is ever removed there that the mark does not list.
set -eu
umask 022
# The caller's settings of Python and of cd must not change what runs here.
unset CDPATH
for name in $(env | sed -n 's/^\(PYTHON[A-Za-z0-9_]*\)=.*/\1/p'); do unset "$name"; done

# Messages have two arguments, English and Chinese; the locale chooses one.
case ${LC_ALL:-${LC_MESSAGES:-${LANG:-}}} in [zZ][hH]*) chinese=yes ;; *) chinese=no ;; esac
say() { if [ $chinese = yes ]; then printf '%s\n' "$2"; else printf '%s\n' "$1"; fi; }
fail() {
    say "error: $1" "错误：$2" >&2
    exit 1
}
usage() {
    say "usage: ./install.sh [--prefix DIR] [--python FILE] [--no-service]
  --prefix DIR   where to install; root: /opt/inkwell, settings in /etc/inkwell, data in /var/lib/inkwell;
                 others: DIR is needed and holds all three
  --python FILE  the Python to use instead of the first that fits
  --no-service   add no user and no systemd unit; with --prefix, DIR holds settings and data too" \
        "用法：--prefix 安装目录；--python 指定 Python；--no-service 不创建用户和 systemd 服务，
与 --prefix 同用时设置和数据也在该目录中"
}

marked='inkwell installation 1'
prefix='' python='' service=yes
while [ $# -gt 0 ]; do
    case $1 in
    --prefix | --python)
        [ -n "${2:-}" ] || fail "$1 needs a value, which is empty or missing" "$1 需要一个非空的值"
        if [ "$1" = --prefix ]; then prefix=$2; else python=$2; fi
        shift
        ;;
    --no-service) service=no ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
    shift
done

# Relative paths start in the caller's folder. A Python without a slash is searched for in PATH.
[ -z "$prefix" ] || prefix=$(realpath -ms -- "$prefix")
case $python in */*) python=$(realpath -ms -- "$python") ;; esac
cd "$(dirname "$0")"
sha256sum --check --quiet --strict SHA256SUMS ||
    fail "files are damaged or missing, see above; unpack the archive again" \
        "文件损坏或缺失（见上），请重新解压安装包"
# Every file is listed, and there are no links and devices. An installation in this folder is no part of it.
own=.inkwell-install
case $prefix/ in "$PWD"/?*/) own=${prefix#"$PWD"/} ;; esac
others=$({
    sed -n 's|^[0-9a-f]\{64\} [ *]|./|p' SHA256SUMS
    find . -path "./$own" -prune -o ! -type d ! -path ./SHA256SUMS -print
} | LC_ALL=C sort | uniq -u)
[ -z "$others" ] ||
    fail "SHA256SUMS does not list $others; unpack the archive again, into an empty folder" \
        "SHA256SUMS 中没有 $others；请将安装包重新解压到空文件夹"

# The machine that the bundle is for. The file is read, never run: a folder's name may hold anything.
value() { sed -n "s/^$1=//p" target; }
version=$(value version) python_wanted=$(value python_wanted) machine=$(value machine)
glibc_minor=$(value glibc_minor) model=$(value model)
valid=yes
case $version/$python_wanted/$machine in *[!A-Za-z0-9.+_/-]* | *//* | /* | */ | *..*) valid=no ;; esac
case $glibc_minor in '' | *[!0-9]*) valid=no ;; esac
case $model in '' | . | .. | */* | *[\"\\=]* | *[[:cntrl:]]*) valid=no ;; esac
[ $valid = yes ] && [ -d "models/$model" ] ||
    fail "the file target does not describe this bundle; make the bundle again" \
        "文件 target 的内容与安装包不符；请重新制作安装包"

# The prefix that the service runs from. Settings, data and user of the system belong to that one.
unit=/etc/systemd/system/inkwell.service owner=''
[ ! -e $unit ] || owner=$(sed -n 's|^ExecStart=\(.*\)/current/bin/python .*|\1|p' $unit)
[ ! -e $unit ] || : "${owner:=$unit}"

if [ "$(id -u)" = 0 ]; then
    : "${prefix:=/opt/inkwell}"
    system=$service
    case $owner:$prefix in ":/opt/inkwell" | "$prefix:$prefix") system=yes ;; esac
else
    [ -n "$prefix" ] || fail "only root may leave out --prefix DIR" "非 root 用户请用 --prefix 指定目录"
    service=no system=no
fi
case $prefix in
*[!A-Za-z0-9/._-]*)
    fail "prefix $prefix has characters besides A-Z a-z 0-9 / . _ -" \
        "安装目录 $prefix 只能包含 A-Z a-z 0-9 / . _ -"
    ;;
esac
[ $service = no ] || case $owner in
'' | "$prefix") ;;
*)
    fail "the service inkwell belongs to $owner, not to $prefix; give --no-service, or upgrade or remove that one" \
        "服务 inkwell 属于 $owner，而不是 $prefix；请加 --no-service，或升级、卸载原有安装"
    ;;
esac
settings=$prefix/etc data=$prefix/data
[ $system = no ] || settings=/etc/inkwell data=/var/lib/inkwell

# Folders of the system and of users are no prefix, even where they are empty.
is_of_others() {
    case $1 in
    "$(realpath -ms -- "${HOME:-/}")" | "$(realpath -m -- "${HOME:-/}")") ;;
    /usr/local/bin | /usr/local/etc | /usr/local/lib | /usr/local/sbin | /usr/local/share | /usr/local/src) ;;
    # Of the service: its user could replace programs that lie in its data.
    /etc/inkwell | /etc/inkwell/* | /var/lib/inkwell | /var/lib/inkwell/*) ;;
    /home/*/* | /usr/local/* | /var/*/*) return 1 ;;
    / | /bin | /boot | /dev | /etc | /home | /home/* | /lib | /lib32 | /lib64 | /libx32 | /media | /mnt | /opt | \
        /proc | /root | /run | /sbin | /srv | /sys | /tmp | /usr | /usr/* | /var | /var/*) ;;
    *) return 1 ;;
    esac
}
if is_of_others "$prefix" || is_of_others "$(realpath -m -- "$prefix")"; then
    fail "$prefix is a folder of the system or of a user; give a folder of its own, such as ${prefix%/}/inkwell" \
        "$prefix 是系统或用户的文件夹；请指定单独的文件夹，例如 ${prefix%/}/inkwell"
fi
mark=$prefix/.inkwell-install
if [ -L "$mark" ] || [ ! -f "$mark" ] || [ "$(head -n 1 "$mark")" != "$marked" ]; then
    inside=''
    [ ! -e "$prefix" ] || inside=$(ls -A -- "$prefix/") || inside=$prefix
    # The latter is what an interruption leaves.
    [ -z "$inside" ] || [ "$inside" = "${mark##*/}.new" ] ||
        fail "$prefix is not empty, and this installer did not make it: it has no mark $mark; give a new folder" \
            "$prefix 不是空文件夹，也不是由本安装程序创建（没有标记文件 $mark）；请指定新的文件夹"
fi
for place in "$prefix" "$prefix/releases" "$settings" "$data" "$settings/inkwell.toml" "$settings/keys.jsonl"; do
    [ ! -L "$place" ] || [ -e "$place" ] ||
        fail "$place is a link to a file or folder that does not exist; remove the link, or create what it names" \
            "$place 是指向不存在的文件或文件夹的链接；请删除链接，或创建其目标"
done

# --- can it run here ------------------------------------------------------------------------------

[ "$(uname -m)" = "$machine" ] ||
    fail "this bundle is for $machine, and this machine is $(uname -m)" \
        "安装包适用于 $machine，而本机为 $(uname -m)"
fits() { [ "$("$1" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>&1)" = "$python_wanted" ]; }
[ -n "$python" ] || for python in "python$python_wanted" python3 ''; do
    [ -z "$python" ] || ! command -v "$python" >/dev/null || ! fits "$python" || break
done
{ [ -n "$python" ] && fits "$python"; } ||
    fail "this bundle needs Python $python_wanted; give it with --python FILE, or make a bundle for another version" \
        "需要 Python $python_wanted；请用 --python 指定，或重新制作适合其他版本的安装包"
"$python" -I -c '
import platform, sys
name, version = platform.libc_ver()
sys.exit(name != "glibc" or int(version.split(".")[1]) < int(sys.argv[1]))' "$glibc_minor" ||
    fail "glibc 2.$glibc_minor or newer is needed" "需要 glibc 2.$glibc_minor 或更新版本"
"$python" -I -c 'import venv' 2>/dev/null ||
    fail "$python has no module venv; on Debian it comes with the package python3" \
        "$python 缺少 venv 模块；Debian 请安装软件包 python3"

# --- the user, the settings, the data -------------------------------------------------------------

if [ $service = yes ] && ! id inkwell >/dev/null 2>&1; then
    useradd --system --user-group --no-create-home --home-dir /var/lib/inkwell --shell /usr/sbin/nologin inkwell
fi
as_service() {
    # With nothing of the installer's environment, and no more rights than the service will have.
    set -- env -i PATH=/usr/bin:/bin LANG=C.UTF-8 ORT_DISABLE_TELEMETRY=1 PYTHONDONTWRITEBYTECODE=1 "$@"
    if [ $service = yes ]; then
        setpriv --reuid inkwell --regid inkwell --clear-groups -- "$@"
    else
        "$@"
    fi
}
mkdir -p "$prefix"
# In one step: where the disk is full, half a mark would make this folder somebody else's.
[ -e "$mark" ] || {
    printf '%s\n' "$marked" >"$mark.new"
    mv "$mark.new" "$mark"
}
listed() { grep -qxF -- "$1" "$mark"; }
list() { listed "$1" || printf '%s\n' "$1" >>"$mark"; }
mkdir -p "$settings" "$prefix/releases"
# An existing folder keeps its mode.
[ -e "$data" ] || mkdir -m 700 "$data"
if [ ! -e "$settings/inkwell.toml" ]; then
    rm -f "$settings/inkwell.toml.new"
    # By way of @, which no prefix has: a prefix may itself contain the name of another place.
    sed -e 's|/opt/inkwell|@P|g' -e 's|/var/lib/inkwell|@D|g' -e 's|/etc/inkwell|@S|g' \
        -e "s|@P|$prefix|g" -e "s|@D|$data|g" -e "s|@S|$settings|g" \
        -e "s|models/MODEL\"|models/$(printf '%s' "$model" | sed 's/[&|]/\\&/g')\"|" inkwell.toml >"$settings/inkwell.toml.new"
    mv "$settings/inkwell.toml.new" "$settings/inkwell.toml"
fi
if [ $service = yes ]; then
    # For `inkwell key new`, which keeps owner and mode of an existing file. The settings do not name it yet.
    [ -e "$settings/keys.jsonl" ] || (umask 077 && : >"$settings/keys.jsonl")
    chown root:inkwell "$settings"
    chmod 750 "$settings"
    for place in "$settings/inkwell.toml" "$settings/keys.jsonl"; do
        # What a link leads to belongs to the administrator.
        [ -L "$place" ] || { chown root:inkwell "$place" && chmod 640 "$place"; }
    done
    chown inkwell:inkwell "$data"
fi

# --- the release ----------------------------------------------------------------------------------

release=$version-$(sha256sum SHA256SUMS | cut -c 1-12)
new=$prefix/releases/$release aside=$prefix/releases/$release.damaged
[ ! -e "$new" ] || listed "releases/$release" ||
    fail "this installer did not make $new; remove it" "$new 不是由本安装程序创建的；请将其删除"
# A release is complete when the file of this name holds what its files are. So damage is noticed.
contents() {
    (cd "$1" && {
        find . -type f ! -path ./complete -exec sha256sum {} +
        find . ! -type f ! -type d -printf '%p %l\n'
    } | LC_ALL=C sort)
}
whole() { [ -s "$1/complete" ] && contents "$1" | cmp -s - "$1/complete"; }
trial=$(mktemp -d)
restore() {
    rm -rf "$trial" "$prefix/current.new"
    # A damaged release may still serve. It stays until the new one works.
    [ ! -e "$aside" ] || { rm -rf "$new" && mv -T "$aside" "$new"; }
}
trap restore EXIT
trap 'exit 1' HUP INT TERM
built=no
if whole "$new"; then
    rm -rf "$aside"
else
    built=yes
    if [ -e "$new/complete" ] && [ ! -e "$aside" ]; then
        say "$new is damaged and is installed again" "$new 已损坏，将重新安装"
        list "releases/$release.damaged"
        mv -T "$new" "$aside"
    fi
    rm -rf "$new"
    list "releases/$release"
    "$python" -I -m venv --without-pip "$new"
    # pip runs from its own wheel and is not installed: nothing is added to a release later.
    # HOME is set because a user may have no home, and pip needs one.
    env -i PATH="$PATH" HOME="$new" PYTHONDONTWRITEBYTECODE=1 "$new/bin/python" "$(echo wheels/pip-*.whl)/pip" \
        --isolated --quiet --no-cache-dir --disable-pip-version-check install --no-index --no-deps \
        --find-links wheels --only-binary :all: --require-hashes --no-compile -r requirements.txt ||
        fail "packages were not installed, see above" "安装软件包失败，原因见上"
    "$new/bin/python" -I -m compileall -q -j 0 "$new/lib" >/dev/null 2>&1 || true
    cp -R models licences sbom.cdx.json LICENSE README.md nginx.conf uninstall.sh inkwell.service target "$new/"
fi

# --- does it work: the settings that hold, then a text is embedded and found ----------------------

sed "s|$(printf '%s' "$prefix" | sed 's/[.]/\\./g')/current|$new|g" "$settings/inkwell.toml" >"$trial/inkwell.toml"
mkdir -m 700 "$trial/data"
if [ $service = yes ]; then
    # Only the data belongs to the service: in a folder of its own it could put a link where root writes.
    chown inkwell "$trial/data"
    chgrp inkwell "$trial" "$trial/inkwell.toml"
    chmod 750 "$trial"
fi
try() {
    command=$1 && shift
    as_service "$new/bin/python" -P -m server "$command" --config "$trial/inkwell.toml" --log-level warning "$@"
}
works() {
    # Relative paths in the settings start from their own folder, so this reads the real file.
    as_service "$new/bin/python" -P -m server config --config "$settings/inkwell.toml" >/dev/null || return 1
    printf '人工智能正在改变世界。\n今天天气很好。\n' | try index - --data "$trial/data" >/dev/null || return 1
    try search 'AI 能做哪些事?' --top-k 1 --json --data "$trial/data" | grep -q 人工智能
}
works 2>"$trial/said" || { cat "$trial/said" >&2; false; } || fail "$new is installed and does not work, see above; the release before it stays in use" \
    "$new 安装后自检未通过（见上），未切换到新版本"
if [ $built = yes ]; then
    contents "$new" >"$trial/complete"
    mv "$trial/complete" "$new/complete"
    rm -rf "$aside"
fi

# --- who starts it --------------------------------------------------------------------------------

switch() {
    # subtle: without -n, ln would follow a link that an interruption left; mv replaces the link in one step.
    ln -sfn "$1" "$prefix/current.new"
    mv -T "$prefix/current.new" "$prefix/current"
    [ $service = no ] || {
        mkdir -p "${unit%/*}"
        sed -e "s|/opt/inkwell|$prefix|g" "$prefix/current/inkwell.service" >$unit
    }
}
start() {
    systemctl daemon-reload
    # Earlier failures must not keep systemd from starting this release.
    systemctl reset-failed inkwell 2>/dev/null || true
    systemctl enable --quiet inkwell && systemctl restart inkwell
}
[ -L "$prefix/current" ] || [ ! -e "$prefix/current" ] ||
    fail "$prefix/current is no link; remove it" "$prefix/current 不是链接；请将其删除"
before=$(readlink "$prefix/current" 2>/dev/null || true)
switch "releases/$release"
booted=no
[ $service = no ] || [ ! -d /run/systemd/system ] || booted=yes
[ $booted = no ] || start || {
    { [ -d "$prefix/$before/bin" ] && [ "$before" != "releases/$release" ]; } ||
        fail "the service did not start: journalctl -u inkwell" "服务未能启动：journalctl -u inkwell"
    switch "$before"
    start || fail "neither $release nor ${before##*/} started; current points to the latter again: journalctl -u inkwell, then systemctl restart inkwell" \
        "$release 与 ${before##*/} 均未能启动，current 已指回后者：请查看 journalctl -u inkwell，再运行 systemctl restart inkwell"
    fail "$release did not start, and ${before##*/} serves again: journalctl -u inkwell" \
        "$release 未能启动，已恢复 ${before##*/}：journalctl -u inkwell"
}
# Remove the others but the release before, which stays for a way back. The same bundle again removes none.
if [ "$before" != "releases/$release" ]; then
    sed 1d "$mark" | while read -r old; do
        case $old in
        "releases/$release" | "$before" | releases/*/* | releases/..) ;;
        releases/?*) rm -rf "${prefix:?}/$old" ;;
        esac
    done
    printf '%s\n' "$marked" "releases/$release" >"$mark.new"
    [ -z "$before" ] || ! listed "$before" || printf '%s\n' "$before" >>"$mark.new"
    mv "$mark.new" "$mark"
fi

say "installed $release in $prefix, settings: $settings/inkwell.toml, data: $data" \
    "已安装 $release 到 $prefix，设置：$settings/inkwell.toml，数据：$data"
if [ $booted = yes ]; then
    say "the service inkwell is running" "服务 inkwell 已启动"
else
    command="$prefix/current/bin/python -P -m server serve --config $settings/inkwell.toml"
    say "start it with: $command" "启动命令：$command"
fi
