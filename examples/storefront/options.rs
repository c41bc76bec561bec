//! What the quickstart is asked to do.

use std::{ffi::OsString, fs, io, path::PathBuf};

/// What this executable was started as.
pub(crate) enum Command {
    /// Tell the story.
    Tell(Options),
    /// Be the storefront's API.
    ServeApi { release: PathBuf, port: u16, environment: String, flags: PathBuf },
    /// Smoke the storefront.
    Smoke { web: String, api: String },
}

/// How the story is told.
pub(crate) struct Options {
    /// Where state is kept.
    pub(crate) dir: PathBuf,
    /// Where the router listens; 0 for any free port.
    pub(crate) port: u16,
    /// Whether the last line is JSON and all else goes to standard error.
    pub(crate) json: bool,
    /// Whether production is kept up for a browser at the end.
    pub(crate) serve: bool,
    /// For tests: kill this process once at every journal boundary, and keep in this file which are done.
    pub(crate) crash_ledger: Option<PathBuf>,
    /// Whether `dir` is a temporary one, gone at the end.
    temporary: bool,
}

const USAGE: &str = "usage: quickstart [--dir DIR] [--port N] [--serve] [--json]
  --dir DIR   keep state in DIR, so that a run that was killed can go on (default: a temporary directory)
  --port N    listen at 127.0.0.1:N (default: any free port)
  --serve     keep production up at the end, for a browser
  --json      print one JSON object as the last line; everything else goes to standard error";

/// Reads the arguments.
pub(crate) fn command(args: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let args: Vec<String> = args
        .map(|arg| arg.into_string().map_err(|arg| format!("{} is not UTF-8\n{USAGE}", arg.display())))
        .collect::<Result<_, _>>()?;
    let (name, rest) = match args.first().map(String::as_str) {
        Some(name @ ("serve-api" | "smoke")) => (name, &args[1..]),
        _ => ("tell", &args[..]),
    };
    let value = |flag: &str| rest.iter().position(|arg| arg == flag).and_then(|at| rest.get(at + 1)).cloned();
    let need = |flag: &str| value(flag).ok_or_else(|| format!("{flag} needs a value\n{USAGE}"));
    let number = |flag: &str, text: String| {
        text.parse().map_err(|_| format!("{flag} {text}: not a port, 0 to 65535\n{USAGE}"))
    };
    match name {
        "serve-api" => Ok(Command::ServeApi {
            release: need("--release")?.into(),
            port: number("--port", need("--port")?)?,
            environment: need("--environment")?,
            flags: need("--flags")?.into(),
        }),
        "smoke" => Ok(Command::Smoke { web: need("--web")?, api: need("--api")? }),
        _ => {
            let known = ["--dir", "--port", "--json", "--serve", "--crash-ledger"];
            let mut at = 0;
            while let Some(arg) = rest.get(at) {
                if !known.contains(&arg.as_str()) {
                    return Err(if arg == "--help" {
                        USAGE.to_owned()
                    } else {
                        format!("{arg} is not known\n{USAGE}")
                    });
                }
                at += if matches!(arg.as_str(), "--json" | "--serve") { 1 } else { 2 };
                if at > rest.len() {
                    return Err(format!("{arg} needs a value\n{USAGE}"));
                }
            }
            let has = |flag: &str| rest.iter().any(|arg| arg == flag);
            let temporary = !has("--dir");
            let dir = match value("--dir") {
                Some(dir) => dir.into(),
                None => std::env::temp_dir().join(format!("flowline-quickstart-{}", std::process::id())),
            };
            let port = value("--port").map_or(Ok(0), |text| number("--port", text))?;
            let crash_ledger = value("--crash-ledger").map(PathBuf::from);
            Ok(Command::Tell(Options {
                dir,
                port,
                json: has("--json"),
                serve: has("--serve"),
                crash_ledger,
                temporary,
            }))
        }
    }
}

impl Options {
    /// Removes a temporary directory, at the story's end.
    pub(crate) fn finish(&self) -> io::Result<()> {
        if self.temporary { fs::remove_dir_all(&self.dir) } else { Ok(()) }
    }
}
