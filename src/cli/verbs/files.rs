//! `init`, `schema`, `completions`: a first project, editors, shells.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use flowline_core::{error::BoxError, name::AppName};

use crate::cli::answer::add;
use crate::cli::{Answer, Cli, CliError, Session, args, names, schema};

pub(super) fn schema(name: Option<&str>) -> Result<Answer, BoxError> {
    let Some(name) = name else {
        let mut text = String::new();
        for (name, of, _) in schema::ALL {
            add!(text, "{name:<10} {of}\n");
        }
        let names: Vec<_> = schema::ALL.iter().map(|(name, ..)| name).collect();
        return Ok(Answer::text(text).with("schemas", names));
    };
    let Some((.., schema)) = schema::ALL.iter().find(|(known, ..)| *known == name) else {
        let known: Vec<_> = schema::ALL.iter().map(|(name, ..)| (*name).to_owned()).collect();
        return Err(names::unknown("schema", name, &known).into());
    };
    let value: serde_json::Value = serde_json::from_str(schema)?;
    Ok(Answer::text(*schema).with("schema", value))
}

pub(super) fn completions(
    cli: &Cli,
    session: &Session,
    shell: clap_complete::Shell,
) -> Result<Answer, BoxError> {
    let program = session.program();
    let mut command = args::command(cli, program);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, program, &mut script);
    let script = String::from_utf8(script)?;
    Ok(Answer::text(script.clone()).with("shell", shell.to_string()).with("script", script))
}

pub(super) fn init(session: &Session, directory: &Path) -> Result<Answer, BoxError> {
    let at = session.surroundings().directory.join(directory);
    let named = if directory == Path::new(".") { fs::canonicalize(&at).ok() } else { Some(at.clone()) };
    let name = named.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
    let app: AppName = name.parse().map_err(|error| CliError::Usage {
        problem: format!("the application would be called like its folder, but {error}"),
        help: "choose another folder, such as `init shop`".to_owned(),
    })?;
    // Where the deployer will look for them, once it runs in that folder.
    let (topology, grants) =
        session.files().unwrap_or_else(|| ("flowline.toml".into(), "../grants.toml".into()));
    let owned = !grants.is_absolute();
    let person = session.surroundings().person().unwrap_or_else(|| "ada".to_owned());
    let shepherd =
        flowline_core::name::Person::new(&*person).map_or("ada".to_owned(), |person| person.to_string());
    let granted = include_str!("../first/grants.toml").replace("{app}", app.as_str());
    let mut files = vec![
        (
            at.join(topology),
            include_str!("../first/flowline.toml")
                .replace("{app}", app.as_str())
                .replace("{shepherd}", &shepherd),
        ),
        (at.join("web/index.html"), include_str!("../first/index.html").replace("{app}", app.as_str())),
        (at.join("web/VERSION"), "1.0.0\n".to_owned()),
        (at.join(".gitignore"), ".flowline/\n".to_owned()),
    ];
    if owned {
        files.push((at.join(&grants), granted.clone()));
    }
    if let Some((there, _)) = files.iter().find(|(path, _)| path.exists()) {
        return Err(CliError::Usage {
            problem: format!("{} is there already; nothing was written", there.display()),
            help: "move it away, or choose another folder".to_owned(),
        }
        .into());
    }
    let mut text = String::new();
    for (path, content) in &files {
        let failed = |source| CliError::File { doing: "write", file: path.display().to_string(), source };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        fs::write(path, content).map_err(failed)?;
        add!(text, "wrote {}\n", plain(path).display());
    }
    if !owned {
        add!(text, "the owner of the host names adds to {}:\n{granted}", grants.display());
    }
    add!(
        text,
        "commit it, then: {} plan, {} apply, {} serve\n",
        session.program(),
        session.program(),
        session.program()
    );
    let paths: Vec<_> = files.iter().map(|(path, _)| plain(path)).collect();
    Ok(Answer::text(text).with("app", &app).with("files", paths))
}

/// `./shop/../grants.toml` is `grants.toml`, for people.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(plain.components().next_back(), Some(Component::Normal(_))) => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}
