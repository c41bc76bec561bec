# What is done at a release directory on another host: `look DIRECTORY [current] [DIGEST]` says what is there, `act DIRECTORY HOLDER` makes
# the moves in the file `ops`, with the other files beside it. Everything that is decided is decided elsewhere. The answer's last line is
# `ok`, or `fail` and why.
umask 022
nl='
'
fail() { printf '\nfail %s\n' "$*"; exit 0; }
# Does something, named for people, or fails with what it said.
try() {
  doing=$1; shift
  said=$("$@" 2>&1) || fail "io $doing: $(printf %s "$said" | tr '\n' ' ')"
}
needs() { for tool; do command -v "$tool" >/dev/null 2>&1 || fail "tool $tool"; done; }
digest() { sum=$(sha256sum <"$1"); printf %s "${sum%% *}"; }

task=$1 root=$2 here=$PWD
releases=$root/releases in=$root/releases/.incoming
needs sha256sum stat readlink find

# What was granted is the path, so it may not lead elsewhere.
there=$root
while [ ! -e "$there" ] && [ ! -L "$there" ]; do there=${there%/*}; [ -n "$there" ] || there=/; done
real=$(readlink -f "$there")
if [ "$real" != "$there" ]; then printf 'there %s\nreal %s\n' "$there" "$real"; fail link; fi
if [ ! -L "$root/current" ] && [ -e "$root/current" ]; then fail notalink; fi

# Says what is in the release $1.
tree() {
  printf 'tree %s\n' "$1"
  [ -d "$releases/$1" ] || return
  (
    cd "$releases/$1" || exit
    if [ -f REVISION ]; then IFS= read -r line <REVISION; printf 'revision %s\n' "$line"; fi
    if [ -n "$(find . -name "*$nl*")" ]; then echo odd; exit; fi
    [ -z "$(find . ! -type d ! -type f ! -type l)" ] || echo odd
    find . -type d -exec stat -c 'd %a %n' {} +
    find . -type f -exec stat -c 'f %a %s %n' {} +
    find . -type f -exec sha256sum {} + | sed 's/^/s /'
    find . -type l -exec sh -c 'for l; do printf "l %s\n> %s\n" "$l" "$(readlink "$l")"; done' sh {} +
  ) 2>/dev/null
}

look() {
  [ ! -e "$root" ] || echo there
  if [ -L "$root/current" ]; then printf 'current %s\n' "$(readlink "$root/current")"; fi
  for at in "$releases"/[0-9]*-*; do
    name=${at##*/}
    case $name in *[!0-9a-f-]*) continue;; esac
    [ -d "$at" ] || continue
    printf 'name %s\n' "$name"
    for which; do case $name in *-"$which") tree "$name";; esac; done
  done
  for which; do
    if [ "$which" = current ] && [ -L "$root/current" ]; then at=$(readlink "$root/current"); tree "${at##*/}"; fi
  done
  # Last, as the rest of the answer is the file as it is.
  if [ -f "$root/releases.json" ]; then
    printf 'record %s\n' "$(digest "$root/releases.json")"
    cat "$root/releases.json"
  fi
  printf '\nok\n'
}

# Runs a command with the paths of a list as its arguments, in the new release.
listed() { list=$here/$1; shift; [ ! -s "$list" ] || (cd "$in" && xargs -0 "$@") <"$list"; }
verified() { [ ! -s sums ] || (cd "$in" && sha256sum -c) <sums >/dev/null 2>&1; }
flush() { sync -f "$1" 2>/dev/null || sync; }
drop() {
  [ -e "$releases/$1" ] || [ -L "$releases/$1" ] || return 0
  # A directory that forbids writing keeps what is in it.
  [ -L "$releases/$1" ] || chmod -R u+rwx "$releases/$1" 2>/dev/null
  try "remove $releases/$1" rm -rf "$releases/$1"
}
receive() {
  try "create $in" mkdir "$in"
  try "create the directories of $in" listed dirs mkdir
  [ ! -d tree ] || try "copy to $in" cp -RL tree/. "$in/"
  verified || fail digest
  try "create the directories of $in" listed parents mkdir -p
  while IFS= read -r at && IFS= read -r to; do try "create the link $in/$at" ln -s -- "$to" "$in/$at"; done <links
  if [ -f revision ]; then
    try "write $in/REVISION" cp revision "$in/REVISION"
    try "write $in/REVISION" chmod 644 "$in/REVISION"
  fi
}
# The file is whole, whoever reads it.
remember() {
  new=$root/releases.json.new
  try "write $new" cp record "$new"
  try "write $new" chmod 644 "$new"
  flush "$root"
  try "replace $root/releases.json" mv -f "$new" "$root/releases.json"
  flush "$root"
}
switch() {
  if [ "$1" = - ]; then
    try "remove $root/current" rm -f "$root/current"
  else
    try "remove $root/.current.new" rm -rf "$root/.current.new"
    try "create $root/.current.new" ln -s "releases/$1" "$root/.current.new"
    try "switch $root/current" mv -fT "$root/.current.new" "$root/current"
  fi
  flush "$root"
}
# Whether everything is as it was looked at.
unmoved() {
  now=-; [ ! -L "$root/current" ] || now=$(readlink "$root/current")
  [ "${now#releases/}" = "$1" ] || return 1
  now=-; [ ! -f "$root/releases.json" ] || now=$(digest "$root/releases.json")
  [ "$now" = "$2" ]
}

act() {
  needs flock xargs mv
  try "create $releases" mkdir -p "$releases"
  try "open $root/.lock" touch "$root/.lock"
  exec 9<>"$root/.lock"
  flock -n 9 || fail "busy $(head -c 500 "$root/.lock" | tr -d '[:cntrl:]')"
  # Whoever looks finds no holder any more.
  trap ': >"$root/.lock"' EXIT
  trap 'exit 143' HUP INT TERM
  printf '%s\n' "$1" >"$root/.lock"
  while read -r move one two <&3; do
    case $move in
    expect) unmoved "$one" "$two" || fail moved ;;
    need) while IFS= read -r at; do [ -e "$root/shared/$at" ] || [ -L "$root/shared/$at" ] || fail "notshared $at"; done <need ;;
    drop) drop "$one" ;;
    receive) receive ;;
    chmod) try "set permissions in $in" listed "$two" chmod "$one" ;;
    flush) flush "$in" ;;
    record) remember ;;
    name) try "name $releases/$one" mv -T "$in" "$releases/$one"; flush "$releases" ;;
    switch) switch "$one" ;;
    *) fail "io make the move $move: nobody knows it" ;;
    esac
  done 3<ops
  printf '\nok\n'
}

shift 2
"$task" "$@"
