//! From a bundle and a name to one image: which manifest, which configuration, which layers.

use crate::{
    Digest, ImageError, ImageLimits, Platform,
    bundle::Bundle,
    document::{self, Configuration, Descriptor, Document, SavedImage, malformed},
    name,
};

/// An image, found and verified but for its layers.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    /// Lowest first.
    pub(crate) layers: Vec<LayerPlace>,
    pub(crate) search_path: Option<String>,
}

/// Where a layer is and how it is known.
#[derive(Debug, Clone)]
pub(crate) struct LayerPlace {
    /// The digest of its unpacked stream.
    pub(crate) diff_id: Digest,
    /// The digest and size of the stream as it is stored, if they are known.
    pub(crate) packed: Option<(Digest, u64)>,
    /// Its name in the bundle.
    pub(crate) file: String,
}

/// How deep indexes may be in indexes.
const MAX_NESTING: usize = 3;

/// Finds the image of a name, or the only one, for a platform.
pub(crate) fn resolve(
    bundle: &Bundle,
    name: Option<&str>,
    platform: &Platform,
    limits: &ImageLimits,
) -> Result<Resolved, ImageError> {
    if let Some(bytes) = bundle.read("index.json", limits.document_bytes)? {
        return from_layout(bundle, &bytes, name, platform, limits);
    }
    if let Some(bytes) = bundle.read("manifest.json", limits.document_bytes)? {
        return from_saved(bundle, &bytes, name, platform, limits);
    }
    Err(ImageError::NotFound {
        what: "index.json or manifest.json of an image in",
        name: bundle.path().display().to_string(),
        known: Vec::new(),
    })
}

fn from_layout(
    bundle: &Bundle,
    index: &[u8],
    name: Option<&str>,
    platform: &Platform,
    limits: &ImageLimits,
) -> Result<Resolved, ImageError> {
    let Document::Index(manifests) = document::parse_document(index, "index.json", limits)? else {
        return Err(malformed("index.json", "it is a manifest".to_owned()));
    };
    let chosen = match name {
        Some(wanted) => {
            let named: Vec<_> = manifests.iter().filter(|found| is_called(found, wanted)).collect();
            if named.is_empty() {
                return Err(ImageError::NotFound {
                    what: "image",
                    name: wanted.to_owned(),
                    known: names(&manifests),
                });
            }
            named
        }
        None => {
            let real: Vec<_> = manifests.iter().filter(|found| !is_attestation(found)).collect();
            // Several entries without names are one image for several platforms.
            if real.len() > 1 && real.iter().any(|found| !names_of(found).is_empty()) {
                return Err(ImageError::Ambiguous { known: names(&manifests) });
            }
            real
        }
    };
    let chosen: Vec<Descriptor> = chosen.into_iter().cloned().collect();
    from_candidates(bundle, &chosen, platform, limits, 0)
}

/// Finds the image of a name elsewhere, for a platform; `pinned` is the digest that the name has to stand for.
pub(crate) fn resolve_elsewhere(
    bundle: &Bundle,
    named: &[u8],
    pinned: Option<Digest>,
    platform: &Platform,
    limits: &ImageLimits,
) -> Result<Resolved, ImageError> {
    let what = "the manifest";
    if let Some(expected) = pinned {
        verify(what, expected, Digest::of(named))?;
    }
    from_document(bundle, named, what, platform, limits, 0)
}

/// Chooses the manifest for the platform, and follows indexes.
fn from_candidates(
    bundle: &Bundle,
    candidates: &[Descriptor],
    platform: &Platform,
    limits: &ImageLimits,
    nesting: usize,
) -> Result<Resolved, ImageError> {
    if nesting > MAX_NESTING {
        return Err(malformed("index.json", "indexes lie too deep in indexes".to_owned()));
    }
    let chosen = choose(candidates, platform)?;
    let what = format!("the manifest {}", chosen.digest);
    let bytes = bundle.read_manifest(&chosen.digest, limits.document_bytes)?;
    let bytes = checked(bytes, chosen, &what)?;
    from_document(bundle, &bytes, &what, platform, limits, nesting)
}

fn from_document(
    bundle: &Bundle,
    bytes: &[u8],
    what: &str,
    platform: &Platform,
    limits: &ImageLimits,
    nesting: usize,
) -> Result<Resolved, ImageError> {
    match document::parse_document(bytes, what, limits)? {
        Document::Index(manifests) => {
            from_candidates(bundle, &manifests, platform, limits, nesting + 1)
        }
        Document::Manifest { config, layers } => {
            let name = Bundle::blob_name(&config.digest);
            let bytes = bundle.read(&name, limits.document_bytes)?;
            let bytes = checked(bytes, &config, "the configuration")?;
            let files = layers.into_iter().map(|layer| {
                let file = Bundle::blob_name(&layer.digest);
                (file, Some((layer.digest, layer.size)))
            });
            from_configuration(&bytes, files.collect(), platform)
        }
    }
}

/// Returns the one of these that is for the platform.
pub(crate) fn choose<'a>(
    candidates: &'a [Descriptor],
    platform: &Platform,
) -> Result<&'a Descriptor, ImageError> {
    let real: Vec<_> = candidates.iter().filter(|found| !is_attestation(found)).collect();
    let fits = |found: &&&Descriptor| found.platform.as_ref().is_some_and(|p| p == platform);
    if let Some(chosen) = real.iter().find(fits) {
        return Ok(chosen);
    }
    // One without a platform is judged by its configuration.
    if let Some(chosen) = real.iter().find(|found| found.platform.is_none()) {
        return Ok(chosen);
    }
    if real.is_empty() {
        return Err(malformed("the index", "it has no image".to_owned()));
    }
    let found = real.iter().filter_map(|found| found.platform.as_ref());
    Err(ImageError::Platform {
        wanted: platform.clone(),
        found: found.take(16).map(shown_platform).collect(),
    })
}

/// The old form of `docker save`, which names files and not digests.
fn from_saved(
    bundle: &Bundle,
    manifest: &[u8],
    name: Option<&str>,
    platform: &Platform,
    limits: &ImageLimits,
) -> Result<Resolved, ImageError> {
    let images: Vec<SavedImage> = document::parse(manifest, "manifest.json")?;
    let tags = |image: &SavedImage| image.repo_tags.clone().unwrap_or_default();
    let known = || images.iter().flat_map(tags).take(16).collect();
    let image = match name {
        Some(wanted) => images
            .iter()
            .find(|image| {
                tags(image).iter().any(|tag| name::same(tag, wanted))
                    || config_digest(image).is_some_and(|digest| digest.to_string() == wanted)
            })
            .ok_or_else(|| ImageError::NotFound {
                what: "image",
                name: wanted.to_owned(),
                known: known(),
            })?,
        None => match images.as_slice() {
            [image] => image,
            [] => return Err(malformed("manifest.json", "it has no image".to_owned())),
            _ => return Err(ImageError::Ambiguous { known: known() }),
        },
    };
    let bytes = bundle.read(&image.config, limits.document_bytes)?.ok_or_else(|| {
        malformed("manifest.json", format!("the configuration {:?} is not there", image.config))
    })?;
    // The file is named for its digest; an archive in which it is not is from another program, and has none to verify.
    if let Some(expected) = config_digest(image) {
        verify("the configuration", expected, Digest::of(&bytes))?;
    }
    let layers = image.layers.clone().unwrap_or_default();
    document::check_layers(layers.len(), limits)?;
    from_configuration(&bytes, layers.into_iter().map(|file| (file, None)).collect(), platform)
}

/// Joins the layers of a manifest with those of the configuration, which must be as many.
pub(crate) fn from_configuration(
    bytes: &[u8],
    files: Vec<(String, Option<(Digest, u64)>)>,
    platform: &Platform,
) -> Result<Resolved, ImageError> {
    let configuration: Configuration = document::parse(bytes, "the configuration")?;
    if configuration.platform != *platform {
        return Err(ImageError::Platform {
            wanted: platform.clone(),
            found: vec![shown_platform(&configuration.platform)],
        });
    }
    let diff_ids = configuration.diff_ids();
    if diff_ids.len() != files.len() {
        let reason =
            format!("it names {} layers, and the manifest {}", diff_ids.len(), files.len());
        return Err(malformed("the configuration", reason));
    }
    let layers = diff_ids.iter().zip(files);
    Ok(Resolved {
        layers: layers
            .map(|(&diff_id, (file, packed))| LayerPlace { diff_id, packed, file })
            .collect(),
        search_path: configuration.search_path(),
    })
}

/// Refuses a document that is not there, or not the one that was named.
fn checked(
    bytes: Option<Vec<u8>>,
    descriptor: &Descriptor,
    what: &str,
) -> Result<Vec<u8>, ImageError> {
    let missing = || malformed(what, format!("{} is not there", descriptor.digest));
    let bytes = bytes.ok_or_else(missing)?;
    verify(what, descriptor.digest, Digest::of(&bytes))?;
    Ok(bytes)
}

/// Refuses what has another digest than the one it was named by.
pub(crate) fn verify(what: &str, expected: Digest, found: Digest) -> Result<(), ImageError> {
    if expected == found {
        return Ok(());
    }
    Err(ImageError::Digest { what: what.to_owned(), expected, found })
}

fn config_digest(image: &SavedImage) -> Option<Digest> {
    let name = image.config.rsplit('/').next()?;
    Digest::from_hex(name.strip_suffix(".json").unwrap_or(name))
}

/// The annotations in which programs write the name of an image.
const NAME_ANNOTATIONS: [&str; 2] =
    ["org.opencontainers.image.ref.name", "io.containerd.image.name"];

fn names_of(descriptor: &Descriptor) -> Vec<&str> {
    NAME_ANNOTATIONS.iter().filter_map(|key| descriptor.annotation(key)).collect()
}

fn names(descriptors: &[Descriptor]) -> Vec<String> {
    let named = descriptors.iter().filter_map(|found| names_of(found).pop());
    named.take(16).map(|name| name.chars().take(200).collect()).collect()
}

fn is_called(descriptor: &Descriptor, wanted: &str) -> bool {
    descriptor.digest.to_string() == wanted
        || names_of(descriptor).iter().any(|found| name::same(found, wanted))
}

/// Proofs of how an image was built lie beside it in its index, as images for no platform.
fn is_attestation(descriptor: &Descriptor) -> bool {
    descriptor.annotation("vnd.docker.reference.type").is_some()
        || descriptor.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
}

fn shown_platform(platform: &Platform) -> String {
    platform.to_string().chars().take(60).collect()
}
