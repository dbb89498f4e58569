//! Puts the guest into an image: once for each image, as one layer of a megabyte on top of it.
//!
//! A container that is made of the layered image starts like one of the image itself, needs no directory of the host, and
//! so starts on a remote engine and in an image without a shell too. The layer also has the places that are mounted over,
//! and the names of the users that sandboxes run as.

use bollard::{
    models::{ContainerConfig, ContainerCreateBody, HostConfig},
    query_parameters::{
        CommitContainerOptions, CreateContainerOptions, DownloadFromContainerOptions,
        RemoveContainerOptions, UploadToContainerOptions,
    },
};
use cofferdam_sandbox::SandboxError;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::{
    container::{HOME, WORKSPACE},
    engine::{Engine, refusal},
    labels::{self, Labels},
    prepared,
    users::Users,
};

/// Where the guest is in a layered image.
pub(crate) const GUEST_PATH: &str = "/.cofferdam/guest";

/// The repository of layered images.
pub(crate) const REPOSITORY: &str = "cofferdam/sandbox";

/// Greatest size of a table of users or groups in an image.
const MAX_TABLE: usize = 1 << 20;

/// Changes with anything that the layer holds beside the guest.
const LAYOUT: &str = "1";

/// Makes the layered image of an image, unless the engine has it, and returns its id, and whether it was made now.
pub(crate) async fn layered_image(
    engine: &Engine,
    base: &str,
    users: Users,
    labels: &Labels,
) -> Result<(String, bool), SandboxError> {
    let name = layered_name(base, users);
    match engine.call("look for a prepared image", engine.client().inspect_image(&name)).await {
        Ok(found) => {
            prepared::note_use(engine, &name).await;
            return Ok((found.id.unwrap_or(name), false));
        }
        Err(error) if refusal(&error).is_some_and(|(status, _)| status == 404) => {}
        Err(error) => return Err(error),
    }
    let container = format!("cofferdam-prepare-{:016x}", rand_suffix()?);
    let made = prepare(engine, base, users, labels, &container, &name).await;
    let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
    let removed = engine.client().remove_container(&container, Some(options));
    // The sweeper takes what cannot be removed now.
    if let Err(error) = engine.call("remove the container of a prepared image", removed).await {
        tracing::warn!(container, %error, "could not remove the container of a prepared image");
    }
    made.map(|id| (id, true))
}

fn rand_suffix() -> Result<u64, SandboxError> {
    getrandom::u64().map_err(|error| SandboxError::Host {
        operation: "draw a random name",
        source: Box::new(error),
    })
}

/// A name that says of which image, guest and users the layer is.
fn layered_name(base: &str, users: Users) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [LAYOUT.as_bytes(), base.as_bytes(), cofferdam_guest::PROGRAM] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.update(&users.first().to_le_bytes());
    format!("{REPOSITORY}:{}", &hasher.finalize().to_hex()[..32])
}

async fn prepare(
    engine: &Engine,
    base: &str,
    users: Users,
    labels: &Labels,
    container: &str,
    name: &str,
) -> Result<String, SandboxError> {
    let mut labels = labels.for_helper();
    labels.insert(labels::BASE_IMAGE.to_owned(), base.to_owned());
    let body = ContainerCreateBody {
        image: Some(base.to_owned()),
        // It is never started.
        entrypoint: Some(vec![GUEST_PATH.to_owned()]),
        labels: Some(labels.clone()),
        host_config: Some(HostConfig {
            network_mode: Some("none".to_owned()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptions { name: Some(container.to_owned()), ..Default::default() };
    let created = engine.client().create_container(Some(options), body);
    engine.call("make a container to put the guest in", created).await?;
    let passwd = read_table(engine, container, "/etc/passwd").await?;
    let group = read_table(engine, container, "/etc/group").await?;
    let layer = layer(&users.passwd(&passwd), &users.group(&group)).map_err(|error| {
        SandboxError::Host { operation: "pack the guest", source: Box::new(error) }
    })?;
    let options = UploadToContainerOptions { path: "/".to_owned(), ..Default::default() };
    let body = bollard::body_full(layer.into());
    let uploaded = engine.client().upload_to_container(container, Some(options), body);
    engine.call("put the guest into an image", uploaded).await?;
    let (repository, tag) = name.split_once(':').unwrap_or((name, "latest"));
    let options = CommitContainerOptions {
        container: Some(container.to_owned()),
        repo: Some(repository.to_owned()),
        tag: Some(tag.to_owned()),
        // It does not run.
        pause: false,
        ..Default::default()
    };
    let config = ContainerConfig { labels: Some(labels), ..ContainerConfig::default() };
    let committed = engine.client().commit_container(options, config);
    Ok(engine.call("keep a prepared image", committed).await?.id)
}

/// Reads a table of users from an image; nothing if it has none, or one that is no file or too large to be one.
async fn read_table(engine: &Engine, container: &str, path: &str) -> Result<String, SandboxError> {
    let options = DownloadFromContainerOptions { path: path.to_owned() };
    let mut stream = engine.client().download_from_container(container, Some(options)).boxed();
    let mut archive = Vec::new();
    let read = async {
        while let Some(piece) = stream.try_next().await? {
            // The rest of the archive says nothing more.
            if archive.len() + piece.len() > MAX_TABLE {
                break;
            }
            archive.extend_from_slice(&piece);
        }
        Ok(())
    };
    match engine.call("read the users of an image", read).await {
        Ok(()) => {}
        Err(error) if refusal(&error).is_some_and(|(status, _)| status == 404) => {
            return Ok(String::new());
        }
        Err(error) => return Err(error),
    }
    Ok(first_file(&archive).unwrap_or_default())
}

fn first_file(archive: &[u8]) -> Option<String> {
    let mut archive = tar::Archive::new(archive);
    let mut entry = archive.entries().ok()?.next()?.ok()?;
    let mut text = Vec::new();
    entry
        .header()
        .entry_type()
        .is_file()
        .then(|| std::io::Read::read_to_end(&mut entry, &mut text).ok())??;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Returns the layer as a tar file.
fn layer(passwd: &str, group: &str) -> std::io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut directory = |path: &str, mode| {
        let mut header = header(tar::EntryType::Directory, mode, 0);
        builder.append_data(&mut header, path.trim_start_matches('/'), std::io::empty())
    };
    // Of a directory that the image has, only the mode changes, and that is mounted over.
    for (path, mode) in [
        ("/.cofferdam", 0o755),
        (WORKSPACE, 0o755),
        ("/home", 0o755),
        (HOME, 0o755),
        ("/tmp", 0o1777),
    ] {
        directory(path, mode)?;
    }
    for (path, mode, content) in [
        (GUEST_PATH, 0o755, cofferdam_guest::PROGRAM),
        ("/etc/passwd", 0o644, passwd.as_bytes()),
        ("/etc/group", 0o644, group.as_bytes()),
    ] {
        let mut header = header(tar::EntryType::Regular, mode, content.len() as u64);
        builder.append_data(&mut header, path.trim_start_matches('/'), content)?;
    }
    builder.into_inner()
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
