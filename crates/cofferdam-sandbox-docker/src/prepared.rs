//! Bounds what stays on an engine: images with the guest in them, and the roots that were imported for these.
//!
//! An engine tells when an image was named last, and naming it again as it is named changes that and nothing else. So each use
//! names an image anew, and what was not named for long was used by no process for long. What a container is made of stays, and
//! so does everything that has no name of ours: removing a name leaves an image that has others, and no parent is pruned.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use bollard::{
    models::{ImageInspect, ImageSummary},
    query_parameters::{
        ListContainersOptions, ListImagesOptions, RemoveImageOptions, TagImageOptions,
    },
};
use cofferdam_sandbox::SandboxError;

use crate::{
    engine::{Engine, refusal},
    image::IMPORTED,
    labels,
    prepare::REPOSITORY,
    time,
};

/// How many prepared images stay on an engine, and for how long without use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    pub(crate) images: usize,
    pub(crate) unused: Duration,
}

/// Seconds since 1970, and nanoseconds.
type Moment = (i64, u32);

/// An image with names of ours.
#[derive(Debug, Clone)]
struct Prepared {
    id: String,
    names: Vec<String>,
    /// What the guest was put on; none for a root that was imported.
    base: Option<String>,
    used: Moment,
}

/// Notes that an image is used now.
pub(crate) async fn note_use(engine: &Engine, name: &str) {
    let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
    let options = TagImageOptions { repo: Some(repository.to_owned()), tag: Some(tag.to_owned()) };
    let named = engine.client().tag_image(name, Some(options));
    // If it has gone in the meantime, whoever needs it finds out.
    if let Err(error) = engine.call("note the use of an image", named).await {
        tracing::debug!(name, %error, "could not note the use of an image");
    }
}

/// Whether a request failed since its image is not there any more.
pub(crate) fn image_is_gone(error: &SandboxError) -> bool {
    refusal(error).is_some_and(|(status, message)| {
        status == 404 && message.to_ascii_lowercase().contains("image")
    })
}

/// Removes prepared images that no container uses and that are too old or too many, and returns how many.
pub(crate) async fn sweep(engine: &Engine, keep: Keep) -> Result<usize, SandboxError> {
    let listed = list(engine).await?;
    if listed.is_empty() {
        return Ok(0);
    }
    let info = engine.call("ask for the engine's state", engine.client().info()).await?;
    let now = info.system_time.as_deref().and_then(time::seconds_since_epoch);
    let is_young = |image: &ImageSummary| !is_over(image.created, now, keep.unused);
    if listed.len() <= keep.images && listed.iter().all(is_young) {
        return Ok(0);
    }
    let mut images = Vec::new();
    for image in listed {
        images.extend(prepared(engine, image).await?);
    }
    let options = ListContainersOptions { all: true, ..Default::default() };
    let containers = engine.client().list_containers(Some(options));
    let containers = engine.call("list the containers of images", containers).await?;
    let in_use = containers.into_iter().filter_map(|container| container.image_id).collect();

    let mut gone = HashSet::new();
    for image in surplus(&images, &in_use, now, keep) {
        if remove(engine, image).await {
            gone.insert(image.id.as_str());
        }
    }
    for image in left_alone(&images, &in_use, &gone) {
        remove(engine, image).await;
    }
    Ok(gone.len())
}

async fn list(engine: &Engine) -> Result<Vec<ImageSummary>, SandboxError> {
    let references = vec![REPOSITORY.to_owned(), IMPORTED.to_owned()];
    let options = ListImagesOptions {
        filters: Some(HashMap::from([("reference".to_owned(), references)])),
        ..Default::default()
    };
    let listed = engine.client().list_images(Some(options));
    engine.call("list prepared images", listed).await
}

/// Asks when an image was used; none if it has no name of ours.
async fn prepared(engine: &Engine, image: ImageSummary) -> Result<Option<Prepared>, SandboxError> {
    let base = image.labels.get(labels::BASE_IMAGE).cloned();
    let repository = if base.is_some() { REPOSITORY } else { IMPORTED };
    let mut names = image.repo_tags;
    names.retain(|name| is_ours(name, repository));
    if names.is_empty() {
        return Ok(None);
    }
    let inspected = engine.client().inspect_image(&image.id);
    match engine.call("look for an image", inspected).await {
        Ok(found) => {
            let used = last_named(&found).unwrap_or((image.created, 0));
            Ok(Some(Prepared { id: image.id, names, base, used }))
        }
        Err(error) if refusal(&error).is_some_and(|(status, _)| status == 404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a name is of a repository of ours, and of the form that is given there.
fn is_ours(name: &str, repository: &str) -> bool {
    let name = name.strip_prefix("localhost/").unwrap_or(name);
    let tag = name.strip_prefix(repository).and_then(|rest| rest.strip_prefix(':'));
    tag.is_some_and(|tag| tag.len() == 32 && tag.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn last_named(found: &ImageInspect) -> Option<Moment> {
    let moment = moment(found.metadata.as_ref()?.last_tag_time.as_ref()?)?;
    // The year 1, from an engine that does not know.
    (moment.0 > 0).then_some(moment)
}

/// Reads what [`time`] reads, with the part of a second.
fn moment(text: &str) -> Option<Moment> {
    let seconds = time::seconds_since_epoch(text)?;
    let digits = text.split_once('.').map_or("", |(_, rest)| {
        rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default()
    });
    let digits = digits.get(..9).unwrap_or(digits);
    format!("{digits:0<9}").parse().ok().map(|nanoseconds| (seconds, nanoseconds))
}

fn is_over(then: i64, now: Option<i64>, life: Duration) -> bool {
    let age = now.map(|now| u64::try_from(now.saturating_sub(then)).unwrap_or(0));
    age.is_some_and(|age| Duration::from_secs(age) > life)
}

/// Returns what is to go, the longest unused first. A root counts only if the guest was not put on it.
fn surplus<'a>(
    images: &'a [Prepared],
    in_use: &HashSet<String>,
    now: Option<i64>,
    keep: Keep,
) -> Vec<&'a Prepared> {
    let bases: HashSet<_> = images.iter().filter_map(|image| image.base.as_ref()).collect();
    let mut counted: Vec<_> = images.iter().filter(|image| !bases.contains(&image.id)).collect();
    counted.sort_by_key(|image| image.used);
    let mut too_many = counted.len().saturating_sub(keep.images);
    counted.retain(|image| {
        let goes = !in_use.contains(&image.id)
            && (too_many > 0 || is_over(image.used.0, now, keep.unused));
        too_many = too_many.saturating_sub(usize::from(goes));
        goes
    });
    counted
}

/// Returns the roots that were there for images which are gone.
fn left_alone<'a>(
    images: &'a [Prepared],
    in_use: &HashSet<String>,
    gone: &HashSet<&str>,
) -> Vec<&'a Prepared> {
    let is_root_of = |root: &Prepared, image: &Prepared| image.base.as_ref() == Some(&root.id);
    images
        .iter()
        .filter(|root| root.base.is_none() && !in_use.contains(&root.id))
        .filter(|root| images.iter().any(|image| is_root_of(root, image)))
        .filter(|root| {
            images.iter().all(|image| !is_root_of(root, image) || gone.contains(image.id.as_str()))
        })
        .collect()
}

/// Takes our names from an image, and the image with the last of all its names.
async fn remove(engine: &Engine, image: &Prepared) -> bool {
    for name in &image.names {
        let options = RemoveImageOptions { force: false, noprune: true, ..Default::default() };
        let removed = engine.client().remove_image(name, Some(options), None);
        match engine.call("remove a prepared image", removed).await {
            Ok(_) => {}
            Err(error) if refusal(&error).is_some_and(|(status, _)| status == 404) => {}
            Err(error) => {
                // A container of another process, most likely, which has just been made.
                tracing::debug!(name, %error, "could not remove a prepared image");
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ours() {
        let check = |name: &str, expect| assert_eq!(is_ours(name, IMPORTED), expect, "{name}");
        let tag = "0123456789abcdef0123456789abcdef";
        check(&format!("cofferdam/import:{tag}"), true);
        check(&format!("localhost/cofferdam/import:{tag}"), true);
        check(&format!("cofferdam/sandbox:{tag}"), false);
        check(&format!("other/cofferdam/import:{tag}"), false);
        check("cofferdam/import:latest", false);
        check("cofferdam/import", false);
    }

    #[test]
    fn moments() {
        let check = |text: &str, expect| assert_eq!(moment(text), expect, "{text}");
        check("1970-01-01T00:00:01Z", Some((1, 0)));
        check("1970-01-01T00:00:01.5Z", Some((1, 500_000_000)));
        check("1970-01-01T02:00:01.000000007+02:00", Some((1, 7)));
        check("yesterday", None);
    }

    /// Images as `id`, `id<base` for one with the guest, and `!` before those in use; each is used a day after the one before.
    fn check(images: &str, keep: usize, days: u64, expect: (&str, &str)) {
        const DAY: i64 = 86_400;
        let mut in_use = HashSet::new();
        let images: Vec<_> = (1_i64..)
            .zip(images.split_whitespace())
            .map(|(day, text)| {
                let name = text.trim_start_matches('!');
                let (id, base) = name.split_once('<').map_or((name, None), |(a, b)| (a, Some(b)));
                if name != text {
                    in_use.insert(id.to_owned());
                }
                let base = base.map(str::to_owned);
                Prepared { id: id.to_owned(), names: Vec::new(), base, used: (day * DAY, 0) }
            })
            .collect();
        let now = Some(i64::try_from(images.len()).expect("few") * DAY);
        let keep = Keep { images: keep, unused: Duration::from_secs(days * 86_400) };
        let ids = |images: Vec<&Prepared>| {
            images.iter().map(|image| image.id.as_str()).collect::<Vec<_>>().join(" ")
        };
        let surplus = surplus(&images, &in_use, now, keep);
        let gone = surplus.iter().map(|image| image.id.as_str()).collect();
        let alone = left_alone(&images, &in_use, &gone);
        assert_eq!((ids(surplus).as_str(), ids(alone).as_str()), expect);
    }

    #[test]
    fn what_goes() {
        check("a b<a c d<c", 2, 9, ("", ""));
        check("a b<a c d<c", 1, 9, ("b", "a"));
        check("a b<a c d<c", 0, 9, ("b d", "a c"));
        // Two guests on one root: it goes with the second.
        check("a b<a c<a", 1, 9, ("b", ""));
        check("a b<a c<a", 0, 9, ("b c", "a"));
        // A root that was imported and never used, and an image that was pulled by name.
        check("a b<pulled c<pulled", 1, 9, ("a b", ""));
        // What is used stays, and the next goes for it.
        check("!a<x b<x c<x", 1, 9, ("b c", ""));
        check("!a b<a c<x", 1, 9, ("b", ""));
        // By age, whatever the number.
        check("a<x b<x c<x d<x", 9, 1, ("a b", ""));
        check("a b<a c<x d<x", 9, 1, ("b", "a"));
    }
}
