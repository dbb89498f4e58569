//! Which sandboxes are on an engine, whoever made them, and removing one by its name.

use std::collections::HashMap;

use bollard::{
    models::{ContainerSummary, ContainerSummaryStateEnum},
    query_parameters::ListContainersOptions,
};
use cofferdam_core::{SandboxId, Timestamp};
use cofferdam_sandbox::{ListedSandbox, SandboxError, SandboxState};
use futures::{StreamExt as _, stream};

use crate::{
    attach::label,
    backend::Connected,
    engine::{BACKEND, refusal},
    held::Held,
    labels::{self, Labels, Owner},
    sandbox::Container,
};

/// Containers that are asked for their relays at a time.
const AT_ONCE: usize = 8;

impl Connected {
    /// Returns the sandboxes of this engine.
    pub(crate) async fn list(&self) -> Result<Vec<ListedSandbox>, SandboxError> {
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([("label".to_owned(), vec![labels::SANDBOX.to_owned()])])),
            ..Default::default()
        };
        let listed = self.engine.client().list_containers(Some(options));
        let containers = self.engine.call("list the containers of sandboxes", listed).await?;
        let found = stream::iter(containers).map(|container| async move {
            let mut listed = read(&container)?;
            listed.connected = self.may_be_connected(&container, &listed.id).await;
            Some(listed)
        });
        Ok(found.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await)
    }

    /// Returns whether somebody may be at the other end of a container's streams, or of a relay in it.
    async fn may_be_connected(&self, container: &ContainerSummary, id: &SandboxId) -> bool {
        if container.state != Some(ContainerSummaryStateEnum::RUNNING) {
            return false;
        }
        if Held::has(id) {
            return true;
        }
        let label = |name: &str| container.labels.as_ref()?.get(name);
        let maker = label(labels::MAKER).or_else(|| label(labels::OWNER));
        let maker = maker.and_then(|text| Owner::parse(text)).unwrap_or_default();
        if maker.is_alive() && maker != self.labels.owner {
            return true;
        }
        match self.has_relay(&format!("cofferdam-{id}")).await {
            Ok(has) => has,
            Err(error) => {
                tracing::debug!(%id, %error, "cannot tell whether a sandbox is in use");
                // It is about to go.
                false
            }
        }
    }

    /// Returns whether a relay runs in a container.
    async fn has_relay(&self, name: &str) -> Result<bool, SandboxError> {
        let client = self.engine.client();
        let inspected = client.inspect_container(name, None);
        let inspected = self.engine.call("look for a container", inspected).await?;
        for exec in inspected.exec_ids.unwrap_or_default() {
            let found = self.engine.call("look at a relay", client.inspect_exec(&exec)).await;
            if found?.running == Some(true) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Kills and removes the container of a sandbox. That there is none is no error.
    pub(crate) async fn remove(&self, id: &SandboxId) -> Result<(), SandboxError> {
        // The engine puts it into a path.
        if id.as_str().is_empty() || !id.as_str().bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(());
        }
        let name = format!("cofferdam-{id}");
        let following = self.events.follow(&self.engine, &name);
        let inspected = self.engine.client().inspect_container(&name, None);
        match self.engine.call("look for a container", inspected).await {
            // A container of somebody else may have such a name.
            Ok(found) if label(&found, labels::SANDBOX).is_none_or(|of| of != id.as_str()) => {
                Ok(())
            }
            Ok(_) => Container::new(self.engine.clone(), name, following).remove().await,
            Err(error) if refusal(&error).is_some_and(|(status, _)| status == 404) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Reads what is written on the container of a sandbox; none if it is of another release, or of none.
fn read(container: &ContainerSummary) -> Option<ListedSandbox> {
    let labels = container.labels.as_ref()?;
    let id = SandboxId::new(labels.get(labels::SANDBOX)?.as_str());
    let data = serde_json::from_str(labels.get(labels::STATE)?).ok()?;
    let created = u64::try_from(container.created?).ok()?;
    let life = labels.get(labels::SECONDS).and_then(|text| text.parse::<u64>().ok());
    let end = life.map(|life| created.saturating_add(life.saturating_sub(labels::GRACE.as_secs())));
    let time = |seconds: u64| Timestamp(seconds.saturating_mul(1000));
    Some(ListedSandbox {
        id: id.clone(),
        backend: BACKEND.to_owned(),
        labels: Labels::of_spec(labels),
        created: time(created),
        expires: end.map(time),
        connected: false,
        state: SandboxState { version: 1, backend: BACKEND.to_owned(), id, data },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(labels: &[(&str, &str)]) -> ContainerSummary {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        ContainerSummary {
            labels: Some(labels.collect()),
            created: Some(1000),
            ..Default::default()
        }
    }

    #[test]
    fn what_is_written_on_a_container_is_read() {
        let whole = [
            (labels::SANDBOX, "abc"),
            (labels::STATE, r#"{"container":"cofferdam-abc"}"#),
            (labels::SECONDS, "160"),
            ("cofferdam.label.run", "1"),
            ("of", "somebody"),
        ];
        let listed = read(&container(&whole)).expect("a sandbox");
        let text = serde_json::to_string(&listed).expect("JSON");
        insta::assert_snapshot!(text, @r#"{"id":"abc","backend":"docker","labels":{"run":"1"},"created":1000000,"expires":1100000,"connected":false,"state":{"version":1,"backend":"docker","id":"abc","data":{"container":"cofferdam-abc"}}}"#);
        for missing in 0..2 {
            let mut part = whole.to_vec();
            part.remove(missing);
            assert_eq!(read(&container(&part)), None, "without {}", whole[missing].0);
        }
    }
}
