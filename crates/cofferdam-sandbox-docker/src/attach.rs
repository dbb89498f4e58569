//! Finding a sandbox again that has outlived its connection.
//!
//! A guest that lingers waits at a socket in its container. The engine starts the same program beside it as a relay, whose
//! standard streams are attached and lead to that socket. What proves the host to the guest is a label of the container.

use std::{collections::BTreeMap, time::Duration};

use bollard::{
    container::AttachContainerResults,
    exec::{CreateExecOptions, StartExecOptions, StartExecResults},
    models::ContainerInspectResponse,
};
use cofferdam_sandbox::{
    GuestClient, GuestOptions, LossReason, SandboxError, SandboxState, SessionOptions, SessionToken,
};
use serde::{Deserialize, Serialize};

use crate::{
    backend::Connected,
    container::{self, WORKSPACE},
    engine::{BACKEND, invalid, refusal},
    labels,
    sandbox::{Container, DockerSandbox, better_reason},
    stream::{Said, guest_stream},
    time,
};

/// What a later connection asks of the guest, as the first one did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lingering {
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) output_bytes: u64,
    pub(crate) idle_time: Option<Duration>,
    pub(crate) linger: Duration,
}

/// What a state says of a container.
#[derive(Debug, Deserialize)]
pub(crate) struct Found {
    container: String,
    lingering: Option<Lingering>,
}

impl Found {
    /// Reads a state that this backend wrote.
    pub(crate) fn read(state: &SandboxState) -> Result<Self, SandboxError> {
        if state.backend != BACKEND || state.version != 1 {
            return Err(invalid(format!(
                "the state is of the {} backend, version {}; this is {BACKEND}, version 1",
                state.backend, state.version
            )));
        }
        let found: Self = serde_json::from_value(state.data.clone())
            .map_err(|error| invalid(format!("the state cannot be read: {error}")))?;
        // The engine puts it into a path.
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if found.container.is_empty() || !found.container.chars().all(plain) {
            return Err(invalid("the state names no container"));
        }
        Ok(found)
    }
}

impl Connected {
    /// Connects to the guest of a container again.
    pub(crate) async fn attach(
        &self,
        state: SandboxState,
        found: Found,
    ) -> Result<DockerSandbox, SandboxError> {
        let name = &found.container;
        let following = self.events.follow(&self.engine, name);
        let inspected = self.engine.client().inspect_container(name, None);
        let inspected = match self.engine.call("look for a container", inspected).await {
            Ok(inspected) => inspected,
            Err(error) if refusal(&error).is_some_and(|(status, _)| status == 404) => {
                return Err(gone("its container is no more"));
            }
            Err(error) => return Err(error),
        };
        let lingering = found.lingering.ok_or_else(|| {
            gone("it was not asked to outlive its connection (`SandboxSpec::linger`)")
        })?;
        let token = label(&inspected, labels::SESSION).and_then(parse_token);
        let token = token.ok_or_else(|| gone("its container has no session"))?;
        let wall_time = self.time_left(&inspected).await?;
        let container = Container::new(self.engine.clone(), name.clone(), following);
        // Also if this fails: another attempt may find it.
        container.linger();

        let said = Said::default();
        let attached = self.relay(name).await?;
        let options = GuestOptions {
            workspace: WORKSPACE.to_owned(),
            environment: lingering.environment,
            max_output_bytes: lingering.output_bytes,
            idle_time: lingering.idle_time,
            session: Some(SessionOptions::new(token, lingering.linger)),
            ..GuestOptions::default()
        };
        match GuestClient::resume(guest_stream(attached, said.clone()), options).await {
            Ok(client) => Ok(DockerSandbox::new(state, client, said, container, wall_time)),
            Err(error) => Err(better_reason(error, container.following(), &said).await),
        }
    }

    /// Starts a relay to the guest's socket.
    async fn relay(&self, name: &str) -> Result<AttachContainerResults, SandboxError> {
        let client = self.engine.client();
        let options = CreateExecOptions {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(container::relay_command()),
            ..CreateExecOptions::default()
        };
        let made = client.create_exec(name, options);
        let made = match self.engine.call("make a relay to the guest", made).await {
            Ok(made) => made,
            // Gone in the meantime, or stopped.
            Err(error) if refusal(&error).is_some_and(|(s, _)| matches!(s, 404 | 409)) => {
                return Err(gone("its container has ended"));
            }
            Err(error) => return Err(error),
        };
        let started = client.start_exec(&made.id, None::<StartExecOptions>);
        match self.engine.call("start a relay to the guest", started).await? {
            StartExecResults::Attached { output, input } => {
                Ok(AttachContainerResults { output, input })
            }
            StartExecResults::Detached => Err(gone("the engine did not attach to the relay")),
        }
    }

    /// Returns how much of its wall time a container has left, by the engine's clock.
    async fn time_left(
        &self,
        inspected: &ContainerInspectResponse,
    ) -> Result<Duration, SandboxError> {
        let info = self.engine.call("ask for the engine's state", self.engine.client().info());
        let now = info.await?.system_time;
        let seconds = |text: &Option<String>| text.as_deref().and_then(time::seconds_since_epoch);
        let life = label(inspected, labels::SECONDS).and_then(|text| text.parse().ok());
        let (Some(life), Some(made), Some(now)) =
            (life, seconds(&inspected.created), seconds(&now))
        else {
            return Err(gone("its container does not say for how long it may be there"));
        };
        let age = Duration::from_secs(u64::try_from(now.saturating_sub(made)).unwrap_or(0));
        Ok(Duration::from_secs(life).saturating_sub(labels::GRACE).saturating_sub(age))
    }
}

pub(crate) fn label<'a>(inspected: &'a ContainerInspectResponse, name: &str) -> Option<&'a String> {
    inspected.config.as_ref()?.labels.as_ref()?.get(name)
}

fn gone(detail: &str) -> SandboxError {
    SandboxError::Lost { reason: LossReason::Removed { detail: detail.to_owned() } }
}

/// Writes a token as hexadecimal digits.
pub(crate) fn token_text(token: SessionToken) -> String {
    token.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse_token(text: &String) -> Option<SessionToken> {
    let mut token = [0; 32];
    if text.len() != 2 * token.len() || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in token.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(SessionToken(token))
}

#[cfg(test)]
mod tests {
    use cofferdam_core::SandboxId;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let token = SessionToken(std::array::from_fn(|at| u8::try_from(at * 8).expect("a byte")));
        assert!(parse_token(&token_text(token)) == Some(token));
        for wrong in ["", "00", &"zz".repeat(32), &"ä".repeat(32)] {
            assert!(parse_token(&wrong.to_owned()).is_none(), "{wrong}");
        }
    }

    #[test]
    fn only_states_of_this_backend_are_read() {
        let check = |backend: &str, data: Value, expect: Option<&str>| {
            let state = SandboxState {
                version: 1,
                backend: backend.to_owned(),
                id: SandboxId::new("id"),
                data,
            };
            let message = Found::read(&state).err().map(|error| error.to_string());
            assert_eq!(message.as_deref(), expect);
        };
        check("docker", json!({ "container": "cofferdam-1" }), None);
        check(
            "linux",
            json!({}),
            Some(
                "invalid sandbox request: the state is of the linux backend, version 1; this is docker, version 1",
            ),
        );
        check(
            "docker",
            json!({ "container": "../images" }),
            Some("invalid sandbox request: the state names no container"),
        );
        check(
            "docker",
            json!({}),
            Some("invalid sandbox request: the state cannot be read: missing field `container`"),
        );
    }
}
