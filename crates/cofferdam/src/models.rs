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
    use cofferdam_model_openai::{ChatModel, ResponsesModel};

    let client = |model: &str| {
        let model = model.to_owned();
        |source: cofferdam_core::BoxError| OpenModelError::Client { model, source }
    };
    match choice {
        ModelChoice::OpenAi { name } => {
            let key = key(name, options, true)?;
            let mut builder = ResponsesModel::builder(name.as_str());
            if let Some(url) = &options.base_url {
                builder = builder.base_url(url.as_str());
            }
            if let Some(key) = key {
                builder = builder.api_key(key);
            }
            Ok(Arc::new(builder.build().map_err(|error| client(name)(error.into()))?))
        }
        ModelChoice::Chat { name } => {
            let url = options
                .base_url
                .as_deref()
                .ok_or_else(|| OpenModelError::NoAddress { model: name.clone() })?;
            let mut builder = ChatModel::builder(name.as_str()).base_url(url);
            if let Some(key) = key(name, options, false)? {
                builder = builder.api_key(key);
            }
            Ok(Arc::new(builder.build().map_err(|error| client(name)(error.into()))?))
        }
        other => Err(OpenModelError::NotBuiltIn { model: other.to_string() }),
    }
}

#[cfg(not(feature = "openai"))]
fn live(choice: &ModelChoice, _: &ModelOptions) -> Result<Arc<dyn Model>, OpenModelError> {
    Err(OpenModelError::NotBuiltIn { model: choice.to_string() })
}

/// Returns the provider's key. The default reference may be missing where the server is one's own.
#[cfg(feature = "openai")]
fn key(
    model: &str,
    options: &ModelOptions,
    required: bool,
) -> Result<Option<cofferdam_core::Secret>, OpenModelError> {
    let failed = |source| OpenModelError::Key { model: model.to_owned(), source };
    if let Some(reference) = &options.api_key {
        return secrets::resolve(reference).map(Some).map_err(failed);
    }
    // The vendor's key is not sent to an address that is not the vendor's.
    if options.base_url.is_some() {
        return Ok(None);
    }
    let Ok(reference) = "env:OPENAI_API_KEY".parse() else { return Ok(None) };
    match secrets::resolve(&reference) {
        Ok(key) => Ok(Some(key)),
        Err(source) if required => Err(failed(source)),
        Err(_) => Ok(None),
    }
}
