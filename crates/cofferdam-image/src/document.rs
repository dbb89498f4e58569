//! The JSON documents of images: indexes, manifests, configurations. Unknown fields are tolerated, sizes bounded.

use std::collections::BTreeMap;

use serde::{Deserialize, de::DeserializeOwned};

use crate::{Digest, ImageError, ImageLimits, Platform};

/// What an index or a manifest says on something else.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: Option<String>,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    #[serde(default)]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }
}

/// An index or a manifest; which one it is, is told by its fields.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Either {
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
}

/// An index or a manifest.
#[derive(Debug, Clone)]
pub(crate) enum Document {
    Index(Vec<Descriptor>),
    Manifest { config: Descriptor, layers: Vec<Descriptor> },
}

/// One image of the `manifest.json` of `docker save`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SavedImage {
    pub(crate) config: String,
    #[serde(default)]
    pub(crate) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) layers: Option<Vec<String>>,
}

/// What is read of an image's configuration.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Configuration {
    #[serde(flatten)]
    pub(crate) platform: Platform,
    #[serde(default)]
    config: Option<RunConfiguration>,
    rootfs: RootLayers,
}

#[derive(Debug, Clone, Deserialize)]
struct RunConfiguration {
    #[serde(default, rename = "Env")]
    environment: Option<Vec<String>>,
}

#[derive(Debug, Clone, Deserialize)]
struct RootLayers {
    #[serde(default)]
    diff_ids: Option<Vec<Digest>>,
}

/// The longest search path that is taken over, in bytes.
const MAX_SEARCH_PATH: usize = 4096;

impl Configuration {
    /// Returns the digests of the unpacked layers, lowest first.
    pub(crate) fn diff_ids(&self) -> &[Digest] {
        self.rootfs.diff_ids.as_deref().unwrap_or_default()
    }

    /// Returns the `PATH` of the image's environment.
    pub(crate) fn search_path(&self) -> Option<String> {
        let environment = self.config.as_ref()?.environment.as_ref()?;
        let path = environment.iter().find_map(|variable| variable.strip_prefix("PATH="))?;
        let usable = !path.is_empty() && path.len() <= MAX_SEARCH_PATH && !path.contains('\0');
        usable.then(|| path.to_owned())
    }
}

/// Reads a JSON document.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|error| malformed(what, error.to_string()))
}

/// Reads an index or a manifest.
pub(crate) fn parse_document(
    bytes: &[u8],
    what: &str,
    limits: &ImageLimits,
) -> Result<Document, ImageError> {
    let found: Either = parse(bytes, what)?;
    if found.schema_version == Some(1) {
        return Err(ImageError::Unsupported {
            what: format!("{what} in version 1 of Docker's image format"),
        });
    }
    match (found.manifests, found.config, found.layers) {
        (Some(manifests), None, None) => Ok(Document::Index(manifests)),
        (None, Some(config), layers) => {
            let layers = layers.unwrap_or_default();
            check_layers(layers.len(), limits)?;
            if let Some(layer) = layers.iter().find(|layer| !is_layer(layer)) {
                let kind = layer.media_type.as_deref().unwrap_or_default();
                let kind: String = kind.chars().take(100).collect();
                return Err(ImageError::Unsupported {
                    what: format!("a layer of the kind {kind}"),
                });
            }
            Ok(Document::Manifest { config, layers })
        }
        // Readers disagree on which of the two such a document is.
        (Some(_), ..) => Err(malformed(what, "it is an index and a manifest at once".to_owned())),
        (None, None, _) => Err(malformed(what, "it is no index and no manifest".to_owned())),
    }
}

/// Refuses more layers than the limit.
pub(crate) fn check_layers(count: usize, limits: &ImageLimits) -> Result<(), ImageError> {
    if count > limits.layers {
        let limit = limits.layers as u64;
        return Err(ImageError::TooLarge { what: "the number of layers", limit });
    }
    Ok(())
}

/// Encrypted layers, layers that are fetched from elsewhere, and artifacts that are no files are not unpacked. How a
/// layer is compressed is seen from its bytes.
fn is_layer(layer: &Descriptor) -> bool {
    match layer.media_type.as_deref() {
        None => true,
        Some(kind) => {
            let kind = kind.split(['+', ';']).next().unwrap_or_default();
            let kind = kind.trim_end_matches(".gzip").trim_end_matches(".zstd");
            matches!(
                kind,
                "application/vnd.oci.image.layer.v1.tar"
                    | "application/vnd.docker.image.rootfs.diff.tar"
                    | "application/vnd.docker.image.rootfs.diff"
            ) && !layer.media_type.as_deref().is_some_and(|kind| kind.contains("+encrypted"))
        }
    }
}

/// Makes the error for a part of an image that is not what it has to be.
pub(crate) fn malformed(what: &str, reason: String) -> ImageError {
    ImageError::Malformed { what: what.to_owned(), reason: reason.chars().take(300).collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn check(text: &str) -> Result<&'static str, String> {
        let text = text.replace("DIGEST", DIGEST);
        match parse_document(text.as_bytes(), "it", &ImageLimits::default()) {
            Ok(Document::Index(_)) => Ok("index"),
            Ok(Document::Manifest { .. }) => Ok("manifest"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_document_is_one_thing() {
        let config = r#""config":{"digest":"DIGEST","size":2}"#;
        let layer = |kind: &str| {
            check(&format!(
                r#"{{{config},"layers":[{{"mediaType":"application/vnd.{kind}","digest":"DIGEST","size":1}}]}}"#
            ))
        };
        assert_eq!(check(r#"{"manifests":[],"unknown":{"a":[1]}}"#), Ok("index"));
        assert_eq!(check(&format!("{{{config},\"layers\":null}}")), Ok("manifest"));
        assert_eq!(layer("oci.image.layer.v1.tar"), Ok("manifest"));
        assert_eq!(layer("oci.image.layer.v1.tar+zstd"), Ok("manifest"));
        assert_eq!(layer("docker.image.rootfs.diff.tar.gzip"), Ok("manifest"));
        let refused = [
            check(&format!(r#"{{"manifests":[],{config}}}"#)),
            check(r#"{"layers":[]}"#),
            check(r#"{"schemaVersion":1,"fsLayers":[]}"#),
            check(r#"{"config":{"digest":"md5:00","size":2}}"#),
            check(r#"{"config":{"digest":"DIGEST","size":-2}}"#),
            check("[]"),
            check(""),
            layer("oci.image.layer.v1.tar+gzip+encrypted"),
            layer("docker.image.rootfs.foreign.diff.tar.gzip"),
        ];
        let text: Vec<String> =
            refused.into_iter().map(|found| found.expect_err("refused")).collect();
        insta::assert_snapshot!(text.join("\n"), @r#"
        it is malformed: it is an index and a manifest at once
        it is malformed: it is no index and no manifest
        it in version 1 of Docker's image format is not supported
        it is malformed: "md5:00" is no digest that can be verified: write `sha256:` and 64 lower-case hexadecimal digits at line 1 column 28
        it is malformed: invalid value: integer `-2`, expected u64 at line 1 column 103
        it is malformed: it is no index and no manifest
        it is malformed: EOF while parsing a value at line 1 column 0
        a layer of the kind application/vnd.oci.image.layer.v1.tar+gzip+encrypted is not supported
        a layer of the kind application/vnd.docker.image.rootfs.foreign.diff.tar.gzip is not supported
        "#);
    }

    #[test]
    fn only_the_search_path_is_taken_from_the_environment() {
        let with = |environment: &str| {
            let text = format!(
                r#"{{"os":"linux","architecture":"amd64","variant":"v3","config":{environment},"rootfs":{{"type":"layers","diff_ids":["{DIGEST}"]}}}}"#
            );
            let found: Configuration = parse(text.as_bytes(), "it").expect("a configuration");
            assert_eq!(found.diff_ids().len(), 1);
            found.search_path()
        };
        let path = Some("/opt/bin:/bin".to_owned());
        assert_eq!(with(r#"{"Env":["A=b","PATH=/opt/bin:/bin"],"Cmd":["sh"]}"#), path);
        assert_eq!(with(r#"{"Env":["PATH="]}"#), None);
        assert_eq!(with(r#"{"Env":["PATH=/a\u0000b"]}"#), None);
        assert_eq!(with(r#"{"Env":null}"#), None);
        assert_eq!(with("null"), None);
    }

    proptest! {
        #[test]
        fn no_document_breaks_the_reader(text in r#"[\[\]{}:,"a-z0-9 ]{0,200}"#) {
            let _ = check(&text);
        }

        #[test]
        fn nor_does_one_that_is_nearly_right(
            sizes in proptest::collection::vec(any::<i64>(), 0..4),
            key in "(manifests|layers|config|mediaType|[a-z]{1,6})",
            cut in 0_usize..400,
        ) {
            let list: Vec<String> = sizes
                .iter()
                .map(|size| format!(r#"{{"digest":"DIGEST","size":{size},"{key}":{size}}}"#))
                .collect();
            let text = format!(r#"{{"{key}":[{}],"layers":null}}"#, list.join(","));
            let cut = cut.min(text.len());
            let _ = check(&text);
            let _ = check(&text[..cut]);
        }
    }
}
