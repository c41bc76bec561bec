//! What the people at a forge do in this story, done with plain `git`: commit the storefront, open a branch, merge it, break it.
//!
//! Every action may be repeated: it looks first whether it is done.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The storefront's git repository.
pub(crate) struct Repository(PathBuf);

/// The branch of pull request 123.
pub(crate) const BRANCH: &str = "faster-checkout";

impl Repository {
    /// The repository in `at`, made with the storefront committed on `main` and the pull request's branch beside it.
    pub(crate) fn open(at: &Path, storefront: &Path) -> io::Result<Self> {
        let repository = Self(at.to_owned());
        if repository.git(&["rev-parse", "--verify", "--quiet", BRANCH]).is_ok() {
            return Ok(repository);
        }
        // A run that was killed while it made the repository starts over.
        if at.exists() {
            fs::remove_dir_all(at)?;
        }
        fs::create_dir_all(at)?;
        repository.git(&["init", "--quiet", "--initial-branch=main"])?;
        for part in ["web", "api"] {
            copy(&storefront.join(part), &at.join(part))?;
        }
        fs::copy(storefront.join("flowline.toml"), at.join("flowline.toml"))?;
        repository.commit("The storefront opens")?;
        repository.git(&["switch", "--quiet", "--create", "work"])?;
        let page = fs::read_to_string(at.join("web/index.html"))?
            .replace(
                "Good things, fairly priced.",
                "Good things, fairly priced. <b class=\"new\">Now with one-step checkout.</b>",
            )
            .replace("version 1.0.0", "version 1.1.0");
        fs::write(at.join("web/index.html"), page)?;
        fs::write(at.join("web/VERSION"), "1.1.0\n")?;
        repository.commit("Checkout in one step")?;
        repository.git(&["switch", "--quiet", "main"])?;
        // The branch's name appears last: whoever finds it finds everything.
        repository.git(&["branch", "--move", "work", BRANCH])?;
        Ok(repository)
    }

    /// Merges the pull request's branch, as the forge's button does, and answers the merge's commit.
    pub(crate) fn merge(&self) -> io::Result<String> {
        self.git(&["merge", "--quiet", "--no-ff", "--no-edit", "-m", "Merge pull request #123", BRANCH])?;
        self.head("main")
    }

    /// Commits an API that answers every request with an error, and answers that commit.
    pub(crate) fn break_api(&self) -> io::Result<String> {
        let version = self.0.join("api/VERSION");
        if fs::read_to_string(&version)?.trim() != "2.0.0" {
            fs::write(version, "2.0.0\n")?;
        }
        fs::write(self.0.join("api/products.json"), "[{ \"name\": \"Lantern\" ")?;
        if !self.git(&["status", "--porcelain"])?.is_empty() {
            self.commit("New price list")?;
        }
        self.head("main")
    }

    /// The commit at `revision`.
    pub(crate) fn head(&self, revision: &str) -> io::Result<String> {
        self.git(&["rev-parse", "--verify", revision])
    }

    fn commit(&self, message: &str) -> io::Result<String> {
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "-m", message])
    }

    #[expect(clippy::disallowed_methods, reason = "the example plays the people at the forge")]
    fn git(&self, args: &[&str]) -> io::Result<String> {
        let output = Command::new("git")
            .current_dir(&self.0)
            .args([
                "-c",
                "user.name=Ada",
                "-c",
                "user.email=ada@example.com",
                "-c",
                "commit.gpgsign=false",
                "-c",
                "core.hooksPath=/dev/null",
            ])
            .args(args)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env_remove("GIT_DIR")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| {
                io::Error::other(format!("cannot run `git`, which this example needs: {error}"))
            })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("git {}: {}", args.join(" "), said.trim())))
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to).map(drop)?;
        }
    }
    Ok(())
}
