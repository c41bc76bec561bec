//! What holds of looking for flags in source trees.

use std::{fs, path::Path};

use flowline_core::error::{ErrorKind, Kinded};

use super::*;

fn scanner() -> Scanner {
    Scanner::new(["checkout", "checkout.v2", "new-checkout", "dark_mode", "a"]).unwrap()
}

fn said(scanner: &Scanner, text: &str) -> String {
    let found = scanner.text(text).into_iter();
    let found =
        found.map(|it| format!("{}{}@{}:{}", if it.known { "" } else { "?" }, it.key, it.line, it.column));
    found.collect::<Vec<_>>().join(" ")
}

fn write(root: &Path, file: &str, content: impl AsRef<[u8]>) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

#[test]
fn a_key_counts_where_it_stands_by_itself() {
    let scanner = scanner();
    for (text, expected) in [
        (r#"is_on("checkout")"#, "checkout@1:8"),
        ("flags.checkout.on", "checkout@1:7"),
        ("ends with checkout.", "checkout@1:11"),
        ("[flags.checkout]", "checkout@1:8"),
        (r#"is_on("checkout.v2")"#, "checkout.v2@1:8"),
        ("\"checkout.v3\"", ""),
        ("'my.checkout'", ""),
        ("checkouts my_checkout checkout_page re-checkout checkout-2", ""),
        ("new-checkout", "new-checkout@1:1"),
        ("--checkout --checkout-all", "checkout@1:3"),
        ("écheckout checkouté", ""),
        ("« checkout »", "checkout@1:3"),
        ("dark_mode=1;a+a", "dark_mode@1:1 a@1:13 a@1:15"),
        ("\r\n\té\tdark_mode\r\ncheckout", "dark_mode@2:4 checkout@3:1"),
        ("flags/checkout?x", "checkout@1:7"),
        ("", ""),
    ] {
        assert_eq!(said(&scanner, text), expected, "{text}");
    }
}

#[test]
fn flags_that_are_asked_for_and_not_known_are_told() {
    let scanner = scanner();
    for (text, expected) in [
        (r#"client.is_enabled("gone")"#, "?gone@1:20"),
        ("client.getBooleanValue('gone', false)", "?gone@1:25"),
        ("variation(`gone`)", "?gone@1:12"),
        (r#"client.BooleanValue(ctx, "gone", false, ec)"#, "?gone@1:27"),
        (r#"get_bool_value::<bool>( "gone")"#, "?gone@1:26"),
        (r#"toggles.is_on(&self.context(), "gone")"#, "?gone@1:33"),
        ("useFlag<boolean>(\n  'gone',\n)", "?gone@2:4"),
        (r#"is_enabled("checkout")"#, "checkout@1:13"),
        (
            r#"client.boolean("gone", false, ()) toggles.value("gone", &user) value("gone", 1) x.text("alone")"#,
            "?gone@1:17 ?gone@1:50",
        ),
        (r#"enabled("gone") is_enabled(name) is_enabled("two words") xis_enabled("gone")"#, ""),
    ] {
        assert_eq!(said(&scanner, text), expected, "{text}");
    }
    let ours = scanner.calling(["enabled", "odd(name"]).unwrap();
    assert_eq!(said(&ours, r#"enabled("gone") odd(name("more")"#), "?gone@1:10 ?more@1:27");
}

#[test]
fn generated_spellings_count_where_that_is_asked_for() {
    let text = "NEW_CHECKOUT newCheckout NewCheckout new_checkout new-checkout darkMode Checkout";
    assert_eq!(said(&scanner(), text), "new-checkout@1:51");
    assert_eq!(
        said(&scanner().in_any_spelling().unwrap(), text),
        "new-checkout@1:1 new-checkout@1:14 new-checkout@1:26 new-checkout@1:38 new-checkout@1:51 dark_mode@1:64"
    );
}

#[test]
fn a_tree_is_what_git_sees_of_it() {
    let tree = tempfile::tempdir().unwrap();
    let root = tree.path();
    write(root, ".gitignore", "target/\n*.log\n!keep.log\n");
    write(root, "web/.gitignore", "/dist\n");
    write(root, ".git/HEAD", "checkout");
    write(root, ".github/workflows/ci.yml", "run: test --checkout\n");
    write(root, "src/shop.rs", "fn f() {\n    is_on(\"checkout\");\n    is_on(\"gone\");\n}\n");
    write(root, "target/debug/out.rs", "checkout");
    write(root, "a.log", "checkout");
    write(root, "keep.log", "dark_mode");
    write(root, "web/dist/app.js", "checkout");
    write(root, "web/app.js", "useFlag('checkout')");
    write(root, "flags.toml", "[flags.new-checkout]\n");
    write(root, "image.png", b"\x89PNG\x00checkout");
    write(root, "wide.cs", b"\xff\xfec\0h\0e\0c\0k\0o\0u\0t\0.\0v\x002\0");
    write(root, "latin.txt", b"\xe9 checkout");
    write(root, "huge.json", "checkout ".repeat(100));
    #[cfg(unix)]
    std::os::unix::fs::symlink(root.join("src"), root.join("loop")).unwrap();
    let scan = scanner().without("flags.toml").at_most(500).scan(root).unwrap();
    let shown = |places: &BTreeMap<String, Vec<Reference>>| {
        let line = |(key, places): (&String, &Vec<Reference>)| {
            let places = places.iter().map(ToString::to_string);
            [format!("{key}:")].into_iter().chain(places).collect::<Vec<_>>().join(" ")
        };
        places.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(shown(&scan.references), @r"
    a:
    checkout: .github/workflows/ci.yml:1:13 latin.txt:1:3 src/shop.rs:2:12 web/app.js:1:10
    checkout.v2: wide.cs:1:1
    dark_mode: keep.log:1:1
    new-checkout:
    ");
    insta::assert_snapshot!(shown(&scan.unknown), @"gone: src/shop.rs:3:12");
    let skipped: Vec<_> = scan.skipped.iter().map(|it| format!("{}: {}", it.file, it.why)).collect();
    insta::assert_snapshot!(skipped.join("\n"), @r"
    huge.json: it is too large (900 bytes)
    image.png: it is no text
    ");
    assert_eq!(scan.files, 8);
    assert_eq!(scanner().without("flags.toml").at_most(500).scan(root).unwrap(), scan, "the same again");
}

#[test]
fn bad_requests_are_typed_errors() {
    let tree = tempfile::tempdir().unwrap();
    let missing = scanner().scan(&tree.path().join("nowhere")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let pattern = scanner().without("{").scan(tree.path()).unwrap_err();
    assert_eq!(pattern.kind(), ErrorKind::Invalid, "{pattern}");
    assert_eq!(Scanner::new(Vec::<String>::new()).unwrap().scan(tree.path()).unwrap(), Scan::default());
}
