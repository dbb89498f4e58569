//! Removes what earlier processes have left: containers whose process is dead on this host, and those whose time is over.
//!
//! The engine removes a container when the stream to its host is cut, so there is rarely something to find: a container that
//! was made and never started, or one whose engine was restarted. Nothing of others is touched.

use std::{collections::HashMap, time::Duration};

use bollard::{models::ContainerSummary, query_parameters::ListContainersOptions};
use cofferdam_sandbox::SandboxError;

use crate::{
    engine::Engine,
    labels::{self, Owner},
    sandbox::remove,
    time,
};

/// Removes what is nobody's any more, and returns how many containers that were.
pub(crate) async fn sweep(engine: &Engine) -> Result<usize, SandboxError> {
    let options = ListContainersOptions {
        all: true,
        filters: Some(HashMap::from([("label".to_owned(), vec![labels::OWNER.to_owned()])])),
        ..Default::default()
    };
    let listed = engine.client().list_containers(Some(options));
    let containers = engine.call("list the containers of sandboxes", listed).await?;
    if containers.is_empty() {
        return Ok(0);
    }
    // The engine's clock, since it also says when each container was made.
    let info = engine.call("ask for the engine's state", engine.client().info()).await?;
    let now = info.system_time.as_deref().and_then(time::seconds_since_epoch);
    let mut removed = 0;
    for container in containers.iter().filter(|container| is_nobodys(container, now)) {
        let Some(id) = &container.id else { continue };
        match remove(engine, id).await {
            Ok(()) => removed += 1,
            Err(error) => tracing::warn!(id, %error, "could not remove a container left behind"),
        }
    }
    Ok(removed)
}

fn is_nobodys(container: &ContainerSummary, now: Option<i64>) -> bool {
    let label = |name: &str| container.labels.as_ref()?.get(name);
    let dead = label(labels::OWNER)
        .and_then(|text| Owner::parse(text))
        .is_some_and(|owner| owner.is_dead());
    let life = label(labels::SECONDS).and_then(|text| text.parse::<u64>().ok());
    let over = match (life, container.created, now) {
        (Some(life), Some(created), Some(now)) => {
            let age = u64::try_from(now.saturating_sub(created)).unwrap_or(0);
            Duration::from_secs(age) > Duration::from_secs(life)
        }
        _ => false,
    };
    dead || over
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(owner: &str, seconds: &str) -> ContainerSummary {
        let labels = [(labels::OWNER, owner), (labels::SECONDS, seconds)];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        ContainerSummary { labels: Some(labels), created: Some(1000), ..Default::default() }
    }

    #[test]
    fn whose_a_container_is() {
        let check = |owner: &str, seconds: &str, now: Option<i64>, expect: bool| {
            assert_eq!(is_nobodys(&container(owner, seconds), now), expect, "{owner} {seconds}");
        };
        let this = Owner::this().to_string();
        let dead = this.rsplit_once('/').map(|(rest, _)| format!("{rest}/0")).unwrap_or_default();
        check(&this, "60", Some(1030), false);
        check(&this, "60", Some(1061), true);
        check(&this, "60", None, false);
        check(&this, "60", Some(0), false);
        check(&dead, "60", Some(1030), true);
        check("elsewhere/1/1", "60", Some(1030), false);
        check("elsewhere/1/1", "60", Some(1061), true);
        check("nonsense", "nonsense", Some(9999), false);
    }
}
