//! OCI image layouts for engines that only know what `docker save` makes: the same blobs, with a table of their own.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use serde::Deserialize;
use serde_json::json;

use crate::archive::{self, Packed};

/// Greatest size of an index or a manifest.
const MAX_JSON: u64 = 4 << 20;

/// Names the image in an index.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Deepest index in an index.
const MAX_DEPTH: usize = 4;

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    annotations: std::collections::HashMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// Returns a layout as a file that any engine loads.
///
/// # Errors
///
/// In words, what is wrong with the layout.
pub(crate) async fn of_directory(
    directory: &Path,
    name: Option<&str>,
    architecture: &str,
) -> Result<Packed, String> {
    let table = table(directory, name, architecture)?;
    archive::of_directory_with(directory, "manifest.json", table)
        .await
        .map_err(|error| format!("it cannot be read: {error}"))
}

fn table(directory: &Path, name: Option<&str>, architecture: &str) -> Result<Vec<u8>, String> {
    let mut index: Index = read(&directory.join("index.json"))?;
    if let Some(name) = name {
        index.manifests.retain(|entry| entry.annotations.get(REF_NAME).is_some_and(|n| n == name));
    }
    let mut chosen = pick(index, architecture, name)?;
    for _ in 0..MAX_DEPTH {
        if !is_index(&chosen) {
            let manifest: Manifest = read(&directory.join(blob(&chosen)?))?;
            let layers = manifest.layers.iter().map(blob).collect::<Result<Vec<_>, _>>()?;
            let table = json!([{ "Config": blob(&manifest.config)?, "Layers": layers }]);
            return Ok(table.to_string().into_bytes());
        }
        chosen = pick(read(&directory.join(blob(&chosen)?))?, architecture, None)?;
    }
    Err("its index leads to indexes only".to_owned())
}

fn is_index(entry: &Descriptor) -> bool {
    ["image.index", "manifest.list"].iter().any(|kind| entry.media_type.contains(kind))
}

/// Picks the one entry that is for this architecture, or says nothing of one.
fn pick(index: Index, architecture: &str, name: Option<&str>) -> Result<Descriptor, String> {
    let fits = |entry: &Descriptor| {
        entry.platform.as_ref().is_none_or(|of| of.os == "linux" && of.architecture == architecture)
    };
    let mut entries = index.manifests.into_iter().filter(fits);
    match (entries.next(), entries.next()) {
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => Err("there are several images in it; name one".to_owned()),
        (None, _) => Err(match name {
            Some(name) => format!("there is no {name} for linux on {architecture} in it"),
            None => format!("there is no image for linux on {architecture} in it"),
        }),
    }
}

/// Returns the path of a blob below the layout. A digest is checked, since it becomes a path.
fn blob(entry: &Descriptor) -> Result<String, String> {
    match entry.digest.split_once(':') {
        Some((algorithm @ ("sha256" | "sha512"), hex))
            if hex.len() >= 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            Ok(format!("blobs/{algorithm}/{hex}"))
        }
        _ => Err(format!("it has a digest of an unknown form: {:?}", entry.digest)),
    }
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, String> {
    let text = || -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        File::open(path)?.take(MAX_JSON).read_to_end(&mut text)?;
        Ok(text)
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let text = text().map_err(|error| format!("{name} cannot be read: {error}"))?;
    serde_json::from_slice(&text).map_err(|error| format!("{name} is not as it should be: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0000000000000000000000000000000000000000000000000000000000000000";

    fn check(files: &[(&str, serde_json::Value)], name: Option<&str>, expect: Result<&str, &str>) {
        let directory = tempfile::tempdir().expect("a directory");
        for (path, content) in files {
            let path = directory.path().join(path.replace("HEX", HEX));
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            let text = content.to_string().replace("HEX", HEX);
            std::fs::write(path, text).expect("a file");
        }
        let found = table(directory.path(), name, "amd64");
        let found = found.map(|table| String::from_utf8_lossy(&table).replace(HEX, "HEX"));
        assert_eq!(found.as_deref().map_err(String::as_str), expect);
    }

    #[test]
    fn layouts() {
        let manifest = json!({
            "config": { "digest": "sha256:HEX" },
            "layers": [{ "digest": "sha512:HEX" }],
        });
        let entry = json!({ "digest": "sha256:HEX", "annotations": { REF_NAME: "one" } });
        let files = [
            ("index.json", json!({ "manifests": [entry] })),
            ("blobs/sha256/HEX", manifest.clone()),
        ];
        let table = r#"[{"Config":"blobs/sha256/HEX","Layers":["blobs/sha512/HEX"]}]"#;
        check(&files, None, Ok(table));
        check(&files, Some("one"), Ok(table));
        check(&files, Some("two"), Err("there is no two for linux on amd64 in it"));
        check(
            &files[..1],
            None,
            Err(&format!("{HEX} cannot be read: No such file or directory (os error 2)")),
        );

        let two = json!({ "manifests": [entry, entry] });
        check(&[("index.json", two)], None, Err("there are several images in it; name one"));
        let other = json!({ "digest": "sha256:HEX", "platform": { "os": "linux", "architecture": "mips" } });
        let other = json!({ "manifests": [other] });
        check(&[("index.json", other)], None, Err("there is no image for linux on amd64 in it"));
        let outside = json!({ "manifests": [{ "digest": "sha256:../../../../etc/passwd" }] });
        let message = "it has a digest of an unknown form: \"sha256:../../../../etc/passwd\"";
        check(&[("index.json", outside)], None, Err(message));
        // An index that leads to itself.
        let index = json!({
            "manifests": [{ "digest": "sha256:HEX", "mediaType": "application/vnd.oci.image.index.v1+json" }]
        });
        let files = [("index.json", index.clone()), ("blobs/sha256/HEX", index)];
        check(&files, None, Err("its index leads to indexes only"));
    }
}
