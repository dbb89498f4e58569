//! From the model that an agent file names to a model that answers.

use std::{path::Path, sync::Arc};

use cofferdam_core::SecretRef;
use cofferdam_manifest::{ModelChoice, ModelSpec};
use cofferdam_model::{Model, ScriptError, ScriptedModel};

#[cfg(feature = "openai")]
use crate::secrets;
use crate::secrets::SecretError;

/// What a model needs besides its name.
#[derive(Debug, Clone, Default)]
pub struct ModelOptions {
    /// Address of the provider's API. Default: the provider's own.
    pub base_url: Option<String>,
    /// Where the provider's key is. Default: `env:OPENAI_API_KEY`; servers of one's own may need none.
    pub api_key: Option<SecretRef>,
}

/// Why a model cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenModelError {
    /// The script cannot be read.
    #[error("the script {file} cannot be read")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The script is no script.
    #[error("the script {file} cannot be used")]
    Script {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: ScriptError,
    },
    /// The provider's key cannot be had.
    #[error("the key of model {model:?} cannot be had")]
    Key {
        /// The model.
        model: String,
        /// Why.
        #[source]
        source: SecretError,
    },
    /// A server of Chat Completions has no address of its own.
    #[error(
        "model \"chat:{model}\" needs the address of its server; give one with `--base-url` or `model.base_url`"
    )]
    NoAddress {
        /// The model.
        model: String,
    },
    /// The client refused its settings.
    #[error("the client of model {model:?} cannot be made")]
    Client {
        /// The model.
        model: String,
        /// Why.
        #[source]
        source: cofferdam_core::BoxError,
    },
    /// This build has no client for the provider.
    #[error("this build has no client for {model:?}; enable the feature `openai`")]
    NotBuiltIn {
        /// The model.
        model: String,
    },
}

/// Returns the model that a file asks for: its live one if `OPENAI_API_KEY` is set, else its default.
#[must_use]
pub fn choose(spec: &ModelSpec) -> ModelChoice {
    #[expect(
        clippy::disallowed_methods,
        reason = "the facade decides by the environment whether a live model is at hand"
    )]
    let has_key = std::env::var_os("OPENAI_API_KEY").is_some_and(|key| !key.is_empty());
    match &spec.live {
        Some(live) if has_key => live.clone(),
        _ => spec.default.clone(),
    }
}

/// Opens a model; the path of a script begins at `base`.
///
/// # Errors
///
/// [`OpenModelError`]; nothing is sent anywhere yet.
pub fn open(
    choice: &ModelChoice,
    options: &ModelOptions,
    base: &Path,
) -> Result<Arc<dyn Model>, OpenModelError> {
    match choice {
        ModelChoice::Scripted { file } => {
            let path = base.join(file);
            let file = path.display().to_string();
            let yaml = std::fs::read_to_string(&path)
                .map_err(|source| OpenModelError::Unreadable { file: file.clone(), source })?;
            let model = ScriptedModel::from_yaml(&yaml)
                .map_err(|source| OpenModelError::Script { file, source })?;
            Ok(Arc::new(model))
        }
        provider => live(provider, options),
    }
}

#[cfg(feature = "openai")]
fn live(choice: &ModelChoice, options: &ModelOptions) -> Result<Arc<dyn Model>, OpenModelError> {
    use cofferdam_model_openai::{ChatModel, Endpoint, EndpointError, ResponsesModel};

    let (name, own_address) = match choice {
        ModelChoice::OpenAi { name } => (name, Some(Endpoint::OPENAI)),
        ModelChoice::Chat { name } => (name, None),
        other => return Err(OpenModelError::NotBuiltIn { model: other.to_string() }),
    };
    let failed = |source: EndpointError| OpenModelError::Client {
        model: name.clone(),
        source: source.into(),
    };
    let address = options
        .base_url
        .as_deref()
        .or(own_address)
        .ok_or_else(|| OpenModelError::NoAddress { model: name.clone() })?;
    let mut endpoint = Endpoint::new(address).map_err(failed)?;
    if let Some(key) = key(name, options)? {
        endpoint = endpoint.api_key(key);
    }
    Ok(match choice {
        ModelChoice::Chat { .. } => {
            Arc::new(ChatModel::builder(name.as_str()).build(&endpoint).map_err(failed)?)
        }
        _ => Arc::new(ResponsesModel::builder(name.as_str()).build(&endpoint).map_err(failed)?),
    })
}

#[cfg(not(feature = "openai"))]
fn live(choice: &ModelChoice, _: &ModelOptions) -> Result<Arc<dyn Model>, OpenModelError> {
    Err(OpenModelError::NotBuiltIn { model: choice.to_string() })
}

/// Returns the provider's key. The vendor's own key is not sent to an address that is not the vendor's.
#[cfg(feature = "openai")]
fn key(
    model: &str,
    options: &ModelOptions,
) -> Result<Option<cofferdam_core::Secret>, OpenModelError> {
    let reference = match &options.api_key {
        Some(reference) => reference.clone(),
        None if options.base_url.is_some() => return Ok(None),
        None => VENDOR_KEY.parse().map_err(|error: cofferdam_core::SecretRefError| {
            OpenModelError::Client { model: model.to_owned(), source: error.into() }
        })?,
    };
    secrets::resolve(&reference)
        .map(Some)
        .map_err(|source| OpenModelError::Key { model: model.to_owned(), source })
}

/// Where the vendor's key is unless something else is said.
#[cfg(feature = "openai")]
const VENDOR_KEY: &str = "env:OPENAI_API_KEY";
