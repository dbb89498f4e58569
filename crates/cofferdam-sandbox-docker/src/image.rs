//! Finds the image of a root file system: the engine's own, pulled, loaded from a file, or imported from a directory.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use bollard::{
    models::{CreateImageInfo, ImageInspect},
    query_parameters::{CreateImageOptions, ImportImageOptions},
};
use cofferdam_sandbox::{ImageSource, RootFilesystem, SandboxError};
use futures::{Stream, TryStreamExt as _};

use crate::{
    archive::{self, Packed},
    engine::{BACKEND, Engine, invalid, refusal},
    layout, prepared,
};

/// The repository of what was imported.
pub(crate) const IMPORTED: &str = "cofferdam/import";

/// When an image is asked of its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum PullPolicy {
    /// Never: an image that the engine does not have is refused.
    Never,
    /// If the engine does not have it.
    #[default]
    IfMissing,
    /// Each time a sandbox is made, so that a tag that has moved is noticed.
    Always,
}

/// How far the pull of an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PullProgress {
    /// The image, as it was asked for.
    pub image: String,
    /// The layer, if the step is about one.
    pub layer: Option<String>,
    /// What is being done, in the engine's words, such as `Downloading`.
    pub step: String,
    /// Bytes of the layer so far.
    pub bytes: u64,
    /// Bytes of the whole layer, where the engine knows.
    pub total_bytes: Option<u64>,
}

/// Is told how far a pull is; called between two pieces of the engine's answer, so it must return soon.
#[derive(Clone)]
pub(crate) struct OnProgress(pub(crate) Arc<dyn Fn(&PullProgress) + Send + Sync>);

impl fmt::Debug for OnProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnProgress")
    }
}

/// What bounds the search for an image.
#[derive(Debug, Clone)]
pub(crate) struct ImageOptions {
    pub(crate) default_image: Option<String>,
    pub(crate) pull: PullPolicy,
    pub(crate) transfer_timeout: Duration,
    pub(crate) on_progress: Option<OnProgress>,
}

/// An image that the engine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) id: String,
    pub(crate) environment: Vec<String>,
    pub(crate) volumes: Vec<String>,
}

/// Finds the image for a root, and fetches it if it is not there.
pub(crate) async fn find(
    engine: &Engine,
    root: &RootFilesystem,
    options: &ImageOptions,
) -> Result<Image, SandboxError> {
    match root {
        RootFilesystem::HostSystem => match &options.default_image {
            Some(name) => by_reference(engine, name, options).await,
            None => Err(SandboxError::Image {
                image: "of the host's system".to_owned(),
                reason: "a container has no host system".to_owned(),
                remedy: "name an image as the root, or a default image of the backend".to_owned(),
            }),
        },
        RootFilesystem::Image(ImageSource::Reference(name)) => {
            by_reference(engine, name, options).await
        }
        RootFilesystem::Directory(directory) => {
            let what = directory.display().to_string();
            let packed = archive::of_directory(directory).await.map_err(bad_file(&what))?;
            imported(engine, &what, packed, options).await
        }
        RootFilesystem::Archive(file) => {
            let what = file.display().to_string();
            let packed = archive::of_file(file).await.map_err(bad_file(&what))?;
            imported(engine, &what, packed, options).await
        }
        RootFilesystem::Image(ImageSource::Archive { file, name }) => {
            loaded(engine, file, name.as_deref(), archive::of_file(file).await, options).await
        }
        RootFilesystem::Image(ImageSource::Layout { directory, name }) => {
            let converted = layout::of_directory(directory, name.as_deref(), platform()).await;
            let what = directory.display().to_string();
            let packed = converted.map_err(|reason| unusable(&what, reason, LAYOUT_REMEDY))?;
            loaded(engine, directory, None, Ok(packed), options).await
        }
        other => {
            Err(invalid(format!("this root is not known to the {BACKEND} backend: {other:?}")))
        }
    }
}

const LAYOUT_REMEDY: &str =
    "name a directory in OCI image layout with an image for Linux on this architecture";

/// The architecture of the guest, in the words of images.
pub(crate) fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn unusable(image: &str, reason: impl fmt::Display, remedy: impl Into<String>) -> SandboxError {
    SandboxError::Image {
        image: image.to_owned(),
        reason: reason.to_string(),
        remedy: remedy.into(),
    }
}

fn bad_file(what: &str) -> impl Fn(std::io::Error) -> SandboxError {
    move |error| unusable(what, format!("it cannot be read: {error}"), "correct the path")
}

/// Refuses what is no name of an image: the engine puts it into a path.
fn check_reference(name: &str) -> Result<(), SandboxError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:@+".contains(c);
    let odd_part = |part: &str| part.is_empty() || part.starts_with('.');
    if name.is_empty()
        || name.len() > 512
        || !name.chars().all(allowed)
        || name.split('/').any(odd_part)
    {
        let remedy = "write it as `name:tag` or `registry/name@sha256:…`";
        return Err(unusable(name, "that is no name of an image", remedy));
    }
    Ok(())
}

async fn by_reference(
    engine: &Engine,
    name: &str,
    options: &ImageOptions,
) -> Result<Image, SandboxError> {
    check_reference(name)?;
    if options.pull != PullPolicy::Always
        && let Some(found) = inspect(engine, name).await?
    {
        return usable(name, found);
    }
    if options.pull == PullPolicy::Never {
        let remedy = format!("pull it (`docker pull {name}`), or let the backend pull");
        return Err(unusable(name, format!("{} does not have it", engine.endpoint()), remedy));
    }
    pull(engine, name, options).await?;
    match inspect(engine, name).await? {
        Some(found) => usable(name, found),
        None => Err(unusable(name, "it was pulled and is not there", "look at the engine's log")),
    }
}

async fn inspect(engine: &Engine, name: &str) -> Result<Option<ImageInspect>, SandboxError> {
    match engine.call("look for an image", engine.client().inspect_image(name)).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if refusal(&error).is_some_and(|(status, _)| status == 404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Refuses an image that the guest cannot run in.
fn usable(name: &str, found: ImageInspect) -> Result<Image, SandboxError> {
    let of = (found.os.as_deref().unwrap_or("linux"), found.architecture.as_deref());
    let (system, architecture) = (of.0, of.1.unwrap_or(platform()));
    if system != "linux" || architecture != platform() {
        let reason = format!("it is for {system} on {architecture}");
        return Err(unusable(name, reason, format!("name one for linux on {}", platform())));
    }
    let config = found.config.unwrap_or_default();
    Ok(Image {
        id: found.id.unwrap_or_else(|| name.to_owned()),
        environment: config.env.unwrap_or_default(),
        volumes: config.volumes.unwrap_or_default(),
    })
}

async fn pull(engine: &Engine, name: &str, options: &ImageOptions) -> Result<(), SandboxError> {
    // Without a tag, the engine would fetch all tags that the registry has.
    let last = name.rsplit('/').next().unwrap_or(name);
    let from_image =
        if last.contains([':', '@']) { name.to_owned() } else { format!("{name}:latest") };
    let request = CreateImageOptions {
        from_image: Some(from_image),
        platform: format!("linux/{}", platform()),
        ..Default::default()
    };
    let progress = engine.client().create_image(Some(request), None, None);
    let report = |info: &CreateImageInfo| {
        let Some(OnProgress(tell)) = &options.on_progress else { return };
        let Some(step) = info.status.clone() else { return };
        let detail = info.progress_detail.as_ref();
        let bytes = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
        tell(&PullProgress {
            image: name.to_owned(),
            layer: info.id.clone(),
            step,
            bytes: bytes(detail.and_then(|detail| detail.current)).unwrap_or(0),
            total_bytes: bytes(detail.and_then(|detail| detail.total)).filter(|total| *total > 0),
        });
    };
    let remedy = "check the name and that the engine reaches the registry and may read it there, or load the image \
                  from a file";
    transfer(engine, name, "pull an image", progress, options, remedy, report).await
}

/// Follows the engine's answer to its end, within the time for transfers.
async fn transfer<T>(
    engine: &Engine,
    image: &str,
    operation: &'static str,
    answer: impl Stream<Item = Result<T, bollard::errors::Error>>,
    options: &ImageOptions,
    remedy: &str,
    mut each: impl FnMut(&T),
) -> Result<(), SandboxError> {
    let followed = async {
        let mut answer = std::pin::pin!(answer);
        while let Some(info) = answer.try_next().await? {
            each(&info);
        }
        Ok(())
    };
    match engine.call_within(options.transfer_timeout, operation, followed).await {
        Ok(()) => Ok(()),
        // The engine speaks: it refuses, or it has failed on the way.
        Err(SandboxError::Host { source, .. }) => Err(unusable(image, said(&source), remedy)),
        Err(error) => Err(error),
    }
}

/// What the engine said, without the words around it.
fn said(error: &cofferdam_core::BoxError) -> String {
    use bollard::errors::Error;
    match error.downcast_ref::<Error>() {
        Some(Error::DockerResponseServerError { message, .. }) => message.clone(),
        Some(Error::DockerStreamError { error }) => error.clone(),
        _ => error.to_string(),
    }
}

/// An image with nothing in it, to see whether sandboxes can be built.
pub(crate) async fn empty(engine: &Engine, options: &ImageOptions) -> Result<Image, SandboxError> {
    let packed = archive::empty().map_err(bad_file("an empty root file system"))?;
    imported(engine, "an empty root file system", packed, options).await
}

/// Imports a root file system under a name that says what is in it, unless it is there.
async fn imported(
    engine: &Engine,
    what: &str,
    packed: Packed,
    options: &ImageOptions,
) -> Result<Image, SandboxError> {
    let name = format!("{IMPORTED}:{}", packed.tag(""));
    if let Some(found) = inspect(engine, &name).await? {
        prepared::note_use(engine, &name).await;
        return usable(&name, found);
    }
    let request = CreateImageOptions {
        from_src: Some("-".to_owned()),
        // With the tag in it: Podman does not look at a tag of its own.
        repo: Some(name.clone()),
        ..Default::default()
    };
    let body = bollard::body_try_stream(packed.stream());
    let answer = engine.client().create_image(Some(request), Some(body), None);
    let remedy = "name a directory, or a tar file, of a root file system";
    transfer(engine, what, "import a root file system", answer, options, remedy, |_| {}).await?;
    match inspect(engine, &name).await? {
        Some(found) => usable(&name, found),
        None => Err(unusable(what, "it was imported and is not there", "look at the engine's log")),
    }
}

/// Loads an image from what `docker save` made, unless it is there.
async fn loaded(
    engine: &Engine,
    path: &Path,
    name: Option<&str>,
    packed: std::io::Result<Packed>,
    options: &ImageOptions,
) -> Result<Image, SandboxError> {
    let what = path.display().to_string();
    let packed = packed.map_err(bad_file(&what))?;
    if let Some(name) = name {
        check_reference(name)?;
    }
    let kept = format!("{IMPORTED}:{}", packed.tag(name.unwrap_or_default()));
    if let Some(found) = inspect(engine, &kept).await? {
        prepared::note_use(engine, &kept).await;
        return usable(&kept, found);
    }
    let mut names = Vec::new();
    let body = bollard::body_try_stream(packed.stream());
    let answer = engine.client().import_image(ImportImageOptions::default(), body, None);
    let remedy = "name a file made by `docker save` or `podman save`";
    transfer(engine, &what, "load an image", answer, options, remedy, |info| {
        names.extend(info.stream.as_deref().and_then(loaded_name).map(str::to_owned));
    })
    .await?;
    let chosen = choose(&what, &names, name)?;
    let found = inspect(engine, &chosen).await?;
    let image = usable(
        &what,
        found.ok_or_else(|| unusable(&what, format!("it has no {chosen}"), remedy))?,
    )?;
    let (repository, tag) = kept.split_once(':').unwrap_or((&kept, "latest"));
    let options = bollard::query_parameters::TagImageOptions {
        repo: Some(repository.to_owned()),
        tag: Some(tag.to_owned()),
    };
    engine.call("name an image", engine.client().tag_image(&image.id, Some(options))).await?;
    Ok(image)
}

/// Reads `Loaded image: NAME` and `Loaded image ID: ID`.
fn loaded_name(line: &str) -> Option<&str> {
    let rest = line.trim().strip_prefix("Loaded image")?;
    Some(rest.strip_prefix(" ID").unwrap_or(rest).strip_prefix(':')?.trim())
}

fn choose(what: &str, names: &[String], name: Option<&str>) -> Result<String, SandboxError> {
    let there = || names.join(", ");
    let same = |found: &&String| {
        let found = found.strip_prefix("localhost/").unwrap_or(found);
        name.is_some_and(|name| found == name || found.strip_suffix(":latest") == Some(name))
    };
    match (name, names) {
        (Some(name), _) => names.iter().find(same).cloned().ok_or_else(|| {
            unusable(what, format!("there is no {name} in it"), format!("it has: {}", there()))
        }),
        (None, [only]) => Ok(only.clone()),
        (None, []) => Err(unusable(what, "there is no image in it", "name another file")),
        (None, _) => {
            Err(unusable(what, "there are several images in it", format!("name one: {}", there())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let check = |name: &str, expect: bool| {
            assert_eq!(check_reference(name).is_ok(), expect, "{name}");
        };
        for right in ["debian", "debian:bookworm", "127.0.0.1:5000/a/b:c", "a@sha256:00ff"] {
            check(right, true);
        }
        for wrong in
            ["", "../containers/json", "a/../b", "a//b", "a b", "a?b", "a#b", "ä", "/a", "a/"]
        {
            check(wrong, false);
        }
    }

    #[test]
    fn names_of_what_was_loaded() {
        let check = |line: &str, expect| assert_eq!(loaded_name(line), expect, "{line}");
        check("Loaded image: a:latest\n", Some("a:latest"));
        check("Loaded image ID: sha256:00ff\n", Some("sha256:00ff"));
        check("Loading layer", None);
        let names = ["a:latest".to_owned(), "localhost/b:1".to_owned()];
        let check = |names: &[String], name, expect: Result<&str, &str>| {
            let chosen = choose("file", names, name).map_err(|error| error.to_string());
            assert_eq!(chosen.as_deref().map_err(|error| error.as_str()), expect);
        };
        check(&names, Some("a"), Ok("a:latest"));
        check(&names, Some("b:1"), Ok("localhost/b:1"));
        check(&names[..1], None, Ok("a:latest"));
        let message =
            "the image file cannot be used: there is no c in it; it has: a:latest, localhost/b:1";
        check(&names, Some("c"), Err(message));
        let message = "the image file cannot be used: there are several images in it; name one: a:latest, localhost/b:1";
        check(&names, None, Err(message));
    }

    #[test]
    fn an_image_of_another_machine_is_refused() {
        let check = |os: &str, architecture: &str, expect: bool| {
            let found = ImageInspect {
                os: Some(os.to_owned()),
                architecture: Some(architecture.to_owned()),
                ..ImageInspect::default()
            };
            assert_eq!(usable("image", found).is_ok(), expect, "{os} {architecture}");
        };
        check("linux", platform(), true);
        check("linux", "mips64le", false);
        check("windows", platform(), false);
    }
}
