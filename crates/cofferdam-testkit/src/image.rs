//! Container images for tests, written byte by byte, so that also those can be made that no builder of images would make.
#![expect(clippy::expect_used, reason = "a test that cannot write its files has failed")]

use std::{collections::BTreeMap, fs, io::Write, path::Path};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// A layer: members of a tar archive, in order.
#[derive(Debug, Clone, Default)]
pub struct LayerBuilder {
    bytes: Vec<u8>,
}

impl LayerBuilder {
    /// Returns a layer without members.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file that is readable for all.
    #[must_use]
    pub fn file(self, path: &str, content: &[u8]) -> Self {
        self.member(EntryType::Regular, path.as_bytes(), b"", 0o644, content)
    }

    /// Adds a file with these permissions.
    #[must_use]
    pub fn file_with_mode(self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.member(EntryType::Regular, path.as_bytes(), b"", mode, content)
    }

    /// Adds a directory.
    #[must_use]
    pub fn directory(self, path: &str) -> Self {
        self.member(EntryType::Directory, format!("{path}/").as_bytes(), b"", 0o755, b"")
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(self, path: &str, target: &str) -> Self {
        self.member(EntryType::Symlink, path.as_bytes(), target.as_bytes(), 0o777, b"")
    }

    /// Adds a hard link.
    #[must_use]
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.member(EntryType::Link, path.as_bytes(), target.as_bytes(), 0o644, b"")
    }

    /// Adds a `pax` header for the next member: keys and values.
    #[must_use]
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut bytes = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            // The length counts its own digits.
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            bytes.extend(format!("{length} {key}=").bytes());
            bytes.extend_from_slice(value);
            bytes.push(b'\n');
        }
        self.member(EntryType::XHeader, b"pax", b"", 0o644, &bytes)
    }

    /// Adds a member as it is given; nothing is checked. Names above 100 bytes get a GNU header of their own.
    #[must_use]
    pub fn member(
        mut self,
        kind: EntryType,
        path: &[u8],
        link: &[u8],
        mode: u32,
        content: &[u8],
    ) -> Self {
        for (kind, name) in [(EntryType::GNULongName, path), (EntryType::GNULongLink, link)] {
            if name.len() > 100 {
                self = self.member(kind, b"././@LongLink", b"", 0, &[name, b"\0"].concat());
            }
        }
        let mut header = header(kind, path, link, mode, content.len() as u64);
        header.set_cksum();
        self.header(&header, content)
    }

    /// Adds a header and the content after it; nothing is checked.
    #[must_use]
    pub fn header(mut self, header: &Header, content: &[u8]) -> Self {
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// Returns the archive with its end.
    #[must_use]
    pub fn build(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

/// Returns a header without a checksum; what does not fit is cut.
#[must_use]
pub fn header(kind: EntryType, path: &[u8], link: &[u8], mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    let old = header.as_old_mut();
    for (field, value) in [(&mut old.name, path), (&mut old.linkname, link)] {
        let length = value.len().min(field.len());
        field[..length].copy_from_slice(&value[..length]);
    }
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000_000);
    header.set_size(size);
    header
}

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// With gzip.
    Gzip,
    /// With zstd.
    Zstd,
}

impl Packing {
    /// Compresses bytes.
    #[must_use]
    pub fn pack(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => bytes.to_vec(),
            Self::Gzip => {
                let mut writer =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                writer.write_all(bytes).expect("in memory");
                writer.finish().expect("in memory")
            }
            Self::Zstd => zstd::encode_all(bytes, 1).expect("in memory"),
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Plain => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// An image of layers.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    layers: Vec<(Vec<u8>, Packing)>,
    architecture: String,
    environment: Vec<String>,
}

impl Default for ImageBuilder {
    fn default() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { layers: Vec::new(), architecture: architecture.to_owned(), environment: Vec::new() }
    }
}

/// The parts of an image, by name, and what an index says on it.
#[derive(Debug, Clone)]
pub struct ImageParts {
    /// Contents by digest (`sha256:…`).
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// The descriptor of the manifest.
    pub manifest: Value,
    /// The digest of the configuration.
    pub config: String,
    /// The digests of the layers as they are stored, lowest first.
    pub layers: Vec<String>,
}

impl ImageBuilder {
    /// Returns an image without layers for this machine.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a layer above the others, compressed with gzip.
    #[must_use]
    pub fn layer(self, layer: LayerBuilder) -> Self {
        self.packed(layer, Packing::Gzip)
    }

    /// Adds a layer above the others.
    #[must_use]
    pub fn packed(mut self, layer: LayerBuilder, packing: Packing) -> Self {
        self.layers.push((layer.build(), packing));
        self
    }

    /// Says for which architecture it is.
    #[must_use]
    pub fn architecture(mut self, architecture: &str) -> Self {
        architecture.clone_into(&mut self.architecture);
        self
    }

    /// Adds a variable (`NAME=value`) to its environment.
    #[must_use]
    pub fn variable(mut self, variable: &str) -> Self {
        self.environment.push(variable.to_owned());
        self
    }

    /// Returns its parts.
    #[must_use]
    pub fn parts(&self) -> ImageParts {
        let mut blobs = BTreeMap::new();
        let mut store = |bytes: Vec<u8>| {
            let size = bytes.len();
            let digest = digest(&bytes);
            blobs.insert(digest.clone(), bytes);
            (digest, size)
        };
        let mut layers = Vec::new();
        for (bytes, packing) in &self.layers {
            let (digest, size) = store(packing.pack(bytes));
            layers.push(json!({"mediaType": packing.media_type(), "digest": digest, "size": size}));
        }
        let (config, size) = store(self.configuration());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config,
                "size": size,
            },
            "layers": layers,
        });
        let layers =
            layers.iter().filter_map(|layer| layer["digest"].as_str().map(str::to_owned)).collect();
        let (digest, size) = store(manifest.to_string().into_bytes());
        let manifest = json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest,
            "size": size,
            "platform": {"os": "linux", "architecture": self.architecture},
        });
        ImageParts { blobs, manifest, config, layers }
    }

    /// Returns a `docker save` archive in its old form.
    #[must_use]
    pub fn saved(&self, tag: &str) -> Vec<u8> {
        let config = self.configuration();
        let config_name = format!("{}.json", &digest(&config)[7..]);
        let mut archive = LayerBuilder::new().file(&config_name, &config);
        let mut names = Vec::new();
        for (number, (bytes, packing)) in self.layers.iter().enumerate() {
            let name = format!("layer{number}/layer.tar");
            archive = archive.file(&name, &packing.pack(bytes));
            names.push(name);
        }
        let manifest = json!([{"Config": config_name, "RepoTags": [tag], "Layers": names}]);
        archive.file("manifest.json", manifest.to_string().as_bytes()).build()
    }

    fn configuration(&self) -> Vec<u8> {
        let diff_ids: Vec<_> = self.layers.iter().map(|(bytes, _)| digest(bytes)).collect();
        json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": {"Env": self.environment},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string()
        .into_bytes()
    }
}

/// Writes images under their names into a directory in OCI image layout; `None` leaves the name out.
pub fn write_layout(directory: &Path, images: &[(Option<&str>, &ImageBuilder)]) {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a directory");
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
    let mut manifests = Vec::new();
    for (name, image) in images {
        let mut parts = image.parts();
        for (digest, bytes) in &parts.blobs {
            fs::write(blobs.join(&digest[7..]), bytes).expect("written");
        }
        if let Some(name) = name {
            parts.manifest["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        }
        manifests.push(parts.manifest);
    }
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    fs::write(directory.join("index.json"), index.to_string()).expect("written");
}

/// Returns the digest of bytes, as images name it.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}
