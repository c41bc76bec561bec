//! The page that explains this package shows its code as it is.

use std::fs;

const PAGE: &str = include_str!("../../../docs/backend.md");

/// Without what only formatting changes.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The code blocks of a page; `// …` stands for what is left out.
fn blocks(page: &str) -> Vec<Vec<String>> {
    let inside = page.split("```").skip(1).step_by(2);
    let rust = inside.filter_map(|block| block.strip_prefix("rust,ignore\n"));
    rust.map(|block| block.split("// …").map(words).collect()).collect()
}

#[test]
fn every_line_of_code_on_the_page_is_in_the_package() {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut files = Vec::new();
    for folder in ["src", "tests"] {
        for entry in fs::read_dir(format!("{root}/{folder}")).unwrap() {
            files.push(words(&fs::read_to_string(entry.unwrap().path()).unwrap()));
        }
    }
    let blocks = blocks(PAGE);
    assert_eq!(blocks.len(), 3);
    for block in blocks {
        let in_order = |file: &String| {
            let mut rest = file.as_str();
            block.iter().all(|part| rest.split_once(part.as_str()).map(|(_, after)| rest = after).is_some())
        };
        assert!(files.iter().any(in_order), "no file says: {block:#?}");
    }
}

#[test]
fn a_block_that_nobody_wrote_would_be_found() {
    assert_eq!(blocks("x\n```rust,ignore\nlet a = 1;\n// …\nlet b;\n```\ny"), [["let a = 1;", "let b;"]]);
}
