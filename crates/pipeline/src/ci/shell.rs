//! How a command line is written for a POSIX shell inside a CI file.

use super::text::Word;

/// `words` as one line that a POSIX shell splits into exactly these words.
///
/// Quotes end between characters that would begin something for the CI system, which reads the line before the shell does: `${{`, `$(`,
/// `$[` and `##` never stand in the text.
pub(super) fn line(words: &[Word]) -> String {
    let quoted = words.iter().enumerate().map(|(place, word)| quoted(word.as_str(), place == 0));
    quoted.collect::<Vec<_>>().join(" ")
}

/// Words that begin something when a shell reads them first.
const KEYWORDS: [&str; 17] = [
    "case", "coproc", "do", "done", "elif", "else", "esac", "fi", "for", "function", "if", "in", "select",
    "then", "time", "until", "while",
];

fn quoted(word: &str, first: bool) -> String {
    // Elsewhere a `=` would make an assignment of the first word.
    let plain =
        |c: char| c.is_ascii_alphanumeric() || "-_./:@%+,".contains(c) || c == '=' && word.starts_with('-');
    if !word.is_empty() && word.chars().all(plain) && !(first && KEYWORDS.contains(&word)) {
        return word.to_owned();
    }
    let mut text = String::with_capacity(word.len() + 2);
    text.push('\'');
    let mut before = ' ';
    for c in word.chars() {
        match (before, c) {
            (_, '\'') => text.push_str("'\\''"),
            ('$', '{' | '(' | '[') | ('#', '#') => {
                text.push_str("''");
                text.push(c);
            }
            _ => text.push(c),
        }
        before = c;
    }
    text.push('\'');
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn expressions_of_ci_systems_never_stand_in_the_text() {
        let line = |word: &str| line(&[Word::new(word).unwrap()]);
        assert_eq!(line("deployer"), "deployer");
        assert_eq!(line("--env=production"), "--env=production");
        assert_eq!(line("A=b"), "'A=b'");
        assert_eq!(line("if"), "'if'");
        assert_eq!(line(""), "''");
        assert_eq!(line("it's"), r"'it'\''s'");
        assert_eq!(line("${{ secrets.X }}"), "'$''{{ secrets.X }}'");
        assert_eq!(line("$(id)"), "'$''(id)'");
        assert_eq!(line("##vso[task.x]"), "'#''#vso[task.x]'");
    }

    #[cfg(unix)]
    #[test]
    fn a_shell_gives_back_the_words() {
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(24));
        let word = r#"[ -~äß'"$`\\#!{}()\[\]*?;&|<>]{0,12}"#;
        runner
            .run(&prop::collection::vec(word, 1..12), |texts| {
                let list = super::super::wrapper::words(texts.clone()).unwrap();
                let line = line(&list);
                for opening in ["${{", "$(", "$[", "##"] {
                    prop_assert!(!line.contains(opening), "{line}");
                }
                #[expect(clippy::disallowed_methods, reason = "the test asks a real shell")]
                let output = std::process::Command::new("/bin/sh")
                    .args(["-c", &format!("printf '%s\\n' {line}")])
                    .output()
                    .unwrap();
                let expected = texts.join("\n") + "\n";
                prop_assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
                Ok(())
            })
            .unwrap();
    }
}
