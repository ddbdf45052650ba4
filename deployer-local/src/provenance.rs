//! Where a release's sources come from.

use std::path::Path;
use std::process::Command;

use deployer_core::GitState;

/// The state of the git work tree that a directory is in: the commit, a tag that points at it, and whether there are
/// changes below the directory. None if it is in no work tree, or there is no git. Blocks for as long as git takes.
#[must_use]
pub fn git_state(directory: &Path) -> Option<GitState> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(directory).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let tag = git(&["describe", "--tags", "--exact-match", "HEAD"]);
    let dirty = !git(&["status", "--porcelain", "--", "."])?.is_empty();
    Some(GitState::new(commit, tag, dirty))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_tag_and_changes_are_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(git_state(path), None);
        let git = |arguments: &[&str]| {
            let identity = ["-c", "user.name=x", "-c", "user.email=x@example.com"];
            let done = Command::new("git").arg("-C").arg(path).args(identity).args(arguments).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        git(&["init", "-q"]);
        std::fs::write(path.join("file"), "1").unwrap();
        git(&["add", "."]);
        git(&["commit", "-qm", "one"]);
        git(&["tag", "v1.0"]);
        let state = git_state(path).unwrap();
        assert_eq!((state.commit.len(), state.tag.as_deref(), state.dirty), (40, Some("v1.0"), false));
        std::fs::write(path.join("file"), "2").unwrap();
        assert!(git_state(path).unwrap().dirty);
    }
}
