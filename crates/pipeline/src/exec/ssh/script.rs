//! What the far host is told: one line of shell each, so that nothing has to be installed there. Pure text.
//!
//! The login shell, whichever it is, only starts `/bin/sh` with a constant text ([`BOOT`]) that reads lines and evaluates them. Everything
//! that is particular, secrets above all, comes over standard input and never stands on a command line of the far host.

use std::{fmt::Write as _, path::Path};

use flowline_core::SignedDuration;

use super::files::Carried;
use crate::exec::{Command, MARK};

/// What the far side says on standard error once it reads lines: from then on, and not before, something may happen there.
pub(super) const READY: &str = "flowline-ready-1";
/// The constant part, quoted for any login shell.
pub(super) const BOOT: &str = "exec env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin LC_ALL=C /bin/sh -c 'echo flowline-ready-1 >&2; while IFS= read -r l; do eval \"$l\"; done'";

/// `text` as one word of the shell; a newline is `$n`, as a line may not hold one.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''").replace('\n', "'\"$n\"'"))
}

/// `path` as one word that is never an option.
fn quoted_path(path: &str) -> String {
    quoted(&if path.starts_with('/') { path.to_owned() } else { format!("./{path}") })
}

/// What every session begins with: the newline, the mark, and saying how it ended: on standard error with the mark before it, while the
/// mark alone ends standard output.
pub(super) fn preamble(mark: &str, root: &str) -> String {
    let root = quoted_path(root);
    [
        r#"n=$(printf "a\012b"); n=${n#a}; n=${n%b}"#.to_owned(),
        format!("m={}; r={root}", quoted(mark)),
        r#"over() { printf "%s" "$m"; printf "%s%s\n" "$m" "$*" >&2; }"#.to_owned(),
        r#"say() { over "$@"; exit 0; }"#.to_owned(),
        r#"hash() { h=$(sha256sum <"$1") || return 1; h=${h%% *}; }"#.to_owned(),
        r#"case "$r" in /*) ;; *) r=$PWD/$r;; esac; b=$r/blob"#.to_owned(),
        String::new(),
    ]
    .join("\n")
}

/// Prints which of `digests` the far host lacks, and drops what is damaged there, what runs of more than a day ago left, and what no command
/// has needed for thirty days. A file's time says when it was last needed, to the day.
pub(super) fn missing(digests: &[&str]) -> String {
    let mut script = [
        r#"(umask 077; mkdir -p "$b" "$r/run") || say failed make "$b""#,
        r#"find "$r/run" -mindepth 1 -maxdepth 1 -mtime +1 -exec rm -rf {} +; find "$b" -name "put-*" -mtime +1 -exec rm -f {} +"#,
        r#"have() { [ -f "$b/$1" ] && { hash "$b/$1"; [ "$h" = "$1" ] && { find "$b/$1" -mtime +0 -exec touch {} +; return; }; rm -f "$b/$1"; }; printf "%s\n" "$1"; }"#,
        "",
    ]
    .join("\n");
    for digest in digests {
        let _ = writeln!(script, "have {digest}");
    }
    script + "find \"$b\" -type f -mtime +30 -exec rm -f {} +; say end 0 0\n"
}

/// Takes everything that follows as the contents of `blobs` (digest, length), one after the other, and keeps each whose digest is right.
pub(super) fn put<'a>(blobs: impl Iterator<Item = (&'a str, u64)>) -> String {
    let mut script = [
        r"t=$b/put-${m#@flowline-}; t=${t%@}",
        r#"keep() { tail -c "+$2" "$t" | head -c "$3" >"$t.1"; hash "$t.1"; [ "$h" = "$1" ] || { rm -f "$t" "$t.1"; say failed verify "$1"; }; chmod 0400 "$t.1"; mv -f "$t.1" "$b/$1" || say failed keep "$1"; }"#,
        r#"umask 077; cat >"$t" || say failed receive files"#,
    ]
    .join("\n");
    let mut at = 1;
    for (digest, length) in blobs {
        let _ = write!(script, "; keep {digest} {at} {length}");
        at += length;
    }
    script + "; rm -f \"$t\"; say end 0 0\n"
}

/// Who carries the mark of the command: `own` prints where the environment of each stands. `stop SIGNAL` signals them all; `reap` kills
/// them until nobody new is found twice in a row (one in the middle of `exec` shows no environment), and counts them in `x`.
const KIN: [&str; 3] = [
    r#"own() { grep -lsF "$k" /proc/[0-9]*/environ; }"#,
    r"stop() { kill -$1 -$c || kill -$1 $c; for p in $(own); do p=${p#/proc/}; kill -$1 ${p%/*}; done; }",
    r#"reap() { x=0; z=; q=2; for y in 1 2 3 4 5 6 7 8 9; do q=$((q-1)); for p in $(own); do p=${p#/proc/}; p=${p%/*}; case " $z " in *" $p "*) ;; *) z="$z $p"; x=$((x+1)); q=2; kill -KILL $p;; esac; done; [ $q -gt 0 ] || break; done; kill -KILL -$c && [ ! -e /proc/$$/environ ] && x=1; }"#,
];

/// The whole of a command: its directory with its files, its environment with its mark, itself in a session of its own, whoever listens for
/// the wish to stop it, its end, and what it wrote.
pub(super) fn run(command: &Command, carried: Option<&Carried>, mark: &str, grace: SignedDuration) -> String {
    let mut script = String::new();
    let mut line = |text: &str| {
        script.push_str(text);
        script.push('\n');
    };
    line("s=$(command -v setsid) || say nosetsid; e=$(command -v env)");
    if let Some(carried) = carried {
        line(
            r#"d=$r/run/${m#@flowline-}; d=${d%@}; tidy() { cd /; chmod -R u+w "$d" 2>/dev/null; rm -rf "$d"; }"#,
        );
        line(r#"(umask 077; mkdir -p "$r/run"); mkdir "$d" && cd "$d" || say failed make "$d""#);
        line(
            r#"lay() { mkdir -p "$(dirname "$3")" && cp "$b/$1" "$3" && hash "$3" && [ "$h" = "$1" ] && chmod "$2" "$3" || { tidy; say failed lay "$3"; }; }"#,
        );
        for dir in &carried.dirs {
            line(&format!("mkdir -p {}", quoted_path(dir)));
        }
        for file in &carried.files {
            line(&format!("lay {} {} {}", file.digest, file.mode(), quoted_path(&file.path)));
        }
    } else {
        line("d=; tidy() { :; }");
        line(&format!("cd {} 2>/dev/null || say nodir", quoted_path(&command.dir.to_string_lossy())));
    }
    line(&find_program(command));
    line(&format!("k={}", quoted(&format!("{MARK}={mark}"))));
    KIN.into_iter().for_each(&mut line);
    line("exec 3<&0");
    line(&start(command));
    let seconds = grace.as_secs_f64();
    // Nobody who listens may hold the outputs open.
    let listen = format!(
        "(exec >/dev/null 2>&1; while IFS= read -r w; do case $w in T) stop TERM;; K) stop KILL;; esac; done; stop TERM; sleep {seconds} || sleep {}; stop KILL; tidy) <&3 & w=$!",
        seconds.ceil()
    );
    let fetch = carried.map(fetch).unwrap_or_default();
    // One line, as from here on the listener reads what else comes. Whoever asked may be gone once it has the end: that must not keep the
    // directory from being removed.
    line(&format!(
        "{listen}; {{ wait $c; r=$?; reap; kill -KILL $w; wait $w; }} 2>/dev/null; trap '' HUP PIPE; over end $r $x; {fetch}tidy; exit 0"
    ));
    script
}

/// Says when there is no such program, or none that can be executed.
fn find_program(command: &Command) -> String {
    let program = quoted(&command.program);
    if command.program.contains('/') {
        return format!(
            "[ -e {program} ] || {{ tidy; say noprogram; }}; [ -x {program} ] && [ ! -d {program} ] || {{ tidy; say noexec; }}"
        );
    }
    let path = command.env.get("PATH").map_or_else(|| quoted("/bin:/usr/bin"), |path| quoted(path));
    format!("(PATH={path}; command -v {program}) >/dev/null 2>&1 || {{ tidy; say noprogram; }}")
}

/// Starts the command in a session of its own. Secrets are exported by the shell; everything else may stand on the command line of `env`,
/// which drops what the shell adds.
fn start(command: &Command) -> String {
    let mut line = "(".to_owned();
    for (name, value) in &command.secret_env {
        let _ = write!(line, "{name}={}; export {name}; ", quoted(value.expose()));
    }
    line.push_str("exec \"$s\" \"$e\"");
    for name in ["PATH", "LC_ALL", "PWD", "OLDPWD", "SHLVL", "_"] {
        if !command.secret_env.contains_key(name) {
            let _ = write!(line, " -u {name}");
        }
    }
    line.push_str(" \"$k\"");
    for (name, value) in &command.env {
        let _ = write!(line, " {}", quoted(&format!("{name}={value}")));
    }
    for word in std::iter::once(&command.program).chain(&command.args) {
        let _ = write!(line, " {}", quoted(word));
    }
    line + " </dev/null 3<&-) & c=$!"
}

/// Sends what the command wrote, if it ended well, after the mark on standard output: a line for each file, with its bytes after it.
fn fetch(carried: &Carried) -> String {
    if carried.outputs.is_empty() {
        return String::new();
    }
    let mut text = r#"send() { if [ -x "$1" ]; then i=x; else i=-; fi; hash "$1" && printf "F %s %s %s %s\n" "$h" "$(($(wc -c <"$1")))" $i "$1" && cat "$1"; }; bring() { [ -z "$(find "$1" -name "*$n*")" ] || printf "N\n"; find "$1" -type d -exec printf "D %s\n" {} ";"; find "$1" -type f | while IFS= read -r f; do send "$f"; done; }; if [ $r = 0 ]; then "#.to_owned();
    for path in &carried.outputs {
        let _ = write!(text, "bring {}; ", quoted_path(path));
    }
    text + "printf \"E\\n\"; fi; "
}

/// Whether the far shell can set the variable by itself: a secret has to be.
pub(super) fn is_shell_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && !["UID", "EUID", "PPID", "BASHOPTS", "SHELLOPTS", "BASH_VERSINFO"].contains(&name)
}

/// A path as it stands in lines: relative to the working directory.
pub(super) fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_one_line_and_one_word() {
        assert_eq!(quoted("it's\n$x"), r#"'it'\''s'"$n"'$x'"#);
        assert_eq!((quoted_path("-rf"), quoted_path("/a")), ("'./-rf'".to_owned(), "'/a'".to_owned()));
    }

    #[test]
    fn the_constant_part_means_the_same_in_every_login_shell() {
        let (before, inner) = BOOT.split_once('\'').unwrap();
        assert!(!before.contains(['$', '`', '"', '\\', '!']));
        // In single quotes csh still reads `!` and newlines, fish still reads backslashes.
        assert!(inner.ends_with('\'') && !inner.trim_end_matches('\'').contains(['!', '\n', '\\', '\'']));
        assert!(BOOT.contains(READY));
    }

    #[test]
    fn a_secret_stands_on_no_command_line_and_every_line_is_whole() {
        let secret = flowline_core::secret::Secret::new("hun'ter\n2");
        let command = Command::new("deploy", "/srv").arg("a\nb").env("X.Y", "1").secret_env("KEY", secret);
        let script = run(&command, None, "0-1.", SignedDuration::from_millis(300));
        insta::assert_snapshot!(script, @r#"
        s=$(command -v setsid) || say nosetsid; e=$(command -v env)
        d=; tidy() { :; }
        cd '/srv' 2>/dev/null || say nodir
        (PATH='/bin:/usr/bin'; command -v 'deploy') >/dev/null 2>&1 || { tidy; say noprogram; }
        k='FLOWLINE_MARK=0-1.'
        own() { grep -lsF "$k" /proc/[0-9]*/environ; }
        stop() { kill -$1 -$c || kill -$1 $c; for p in $(own); do p=${p#/proc/}; kill -$1 ${p%/*}; done; }
        reap() { x=0; z=; q=2; for y in 1 2 3 4 5 6 7 8 9; do q=$((q-1)); for p in $(own); do p=${p#/proc/}; p=${p%/*}; case " $z " in *" $p "*) ;; *) z="$z $p"; x=$((x+1)); q=2; kill -KILL $p;; esac; done; [ $q -gt 0 ] || break; done; kill -KILL -$c && [ ! -e /proc/$$/environ ] && x=1; }
        exec 3<&0
        (KEY='hun'\''ter'"$n"'2'; export KEY; exec "$s" "$e" -u PATH -u LC_ALL -u PWD -u OLDPWD -u SHLVL -u _ "$k" 'X.Y=1' 'deploy' 'a'"$n"'b' </dev/null 3<&-) & c=$!
        (exec >/dev/null 2>&1; while IFS= read -r w; do case $w in T) stop TERM;; K) stop KILL;; esac; done; stop TERM; sleep 0.3 || sleep 1; stop KILL; tidy) <&3 & w=$!; { wait $c; r=$?; reap; kill -KILL $w; wait $w; } 2>/dev/null; trap '' HUP PIPE; over end $r $x; tidy; exit 0
        "#);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "what the shell does with the text is what is tested")]
    fn the_directory_goes_even_if_nobody_listens_any_more() {
        use std::{
            io::{BufRead as _, Write as _},
            process::Stdio,
        };

        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_str().unwrap();
        let mark = super::super::mark::new_mark().unwrap();
        let out = dir.path().join("out").display().to_string();
        let command = Command::new("/bin/sh", "/").args(["-c", &format!("pwd >'{out}'")]);
        for outputs in [Vec::new(), vec!["made".to_owned()]] {
            let carried = Carried { dirs: outputs.iter().cloned().collect(), outputs, ..Carried::default() };
            let (_, boot) = BOOT.split_once(" -c '").unwrap();
            let mut shell = std::process::Command::new("/bin/sh")
                .args(["-c", boot.trim_end_matches('\'')])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut first = String::new();
            std::io::BufReader::new(shell.stderr.take().unwrap()).read_line(&mut first).unwrap();
            assert_eq!(first.trim_end(), READY);
            drop(shell.stdout.take());
            let text = preamble(&mark, root) + &run(&command, Some(&carried), "0-1.", SignedDuration::ZERO);
            // The end of its input would be a wish to stop.
            let mut input = shell.stdin.take().unwrap();
            input.write_all(text.as_bytes()).unwrap();
            shell.wait().unwrap();
            drop(input);
            let made = std::fs::read_to_string(&out).unwrap();
            assert!(made.starts_with(root), "it ran in a directory of its own: {made}");
            assert!(!Path::new(made.trim_end()).exists());
        }
    }
}
