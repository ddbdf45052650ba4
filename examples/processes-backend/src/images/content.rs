//! The digest of a directory: of names, kinds, executable bits and bytes, and of nothing that differs between two copies.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use deployer_core::Digest;
use sha2::{Digest as _, Sha256};

use super::{CONFIG, ROOT};

/// The digest of a finished image.
pub(super) fn digest(image: &Path) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    hash_entry(&mut hash, &image.join(CONFIG), CONFIG)?;
    hash_entry(&mut hash, &image.join(ROOT), ROOT)?;
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Digest::new(format!("sha256:{hex}")).map_err(io::Error::other)
}

fn hash_entry(hash: &mut Sha256, path: &Path, name: &str) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    // Every length comes before its bytes, so that no two trees are the same text.
    let mut field = |kind: u8, bytes: &[u8]| {
        hash.update([kind]);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    if metadata.is_symlink() {
        field(b'l', name.as_bytes());
        field(b'>', fs::read_link(path)?.as_os_str().as_encoded_bytes());
    } else if metadata.is_dir() {
        field(b'd', name.as_bytes());
        let mut names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        for name in names {
            let text =
                name.to_str().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a name is not UTF-8"))?;
            hash_entry(hash, &path.join(&name), text)?;
        }
        hash.update([b'.']);
    } else {
        let executable = metadata.permissions().mode() & 0o111 != 0;
        field(if executable { b'x' } else { b'f' }, name.as_bytes());
        hash.update(metadata.len().to_le_bytes());
        let (mut file, mut buffer) = (File::open(path)?, vec![0; 64 << 10]);
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => hash.update(&buffer[..count]),
            }
        }
    }
    Ok(())
}
