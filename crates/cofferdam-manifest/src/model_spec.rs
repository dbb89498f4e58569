//! [`ModelSpec`]: which model drives the agent.

use std::{borrow::Cow, fmt, str::FromStr};

use cofferdam_core::SecretRef;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use crate::{entry::serialize_secret, schema};

/// Which model drives the agent, and how it is asked.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ModelSpec {
    /// The model that is used if the caller names none, such as `scripted:script.jsonl`.
    pub default: ModelChoice,
    /// The model that is used if the caller asks for a live one, such as `openai:gpt-5`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<ModelChoice>,
    /// Address of the provider's API. Default: the provider's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// Key for the provider. Only the control plane reads it.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "serialize_secret")]
    #[schemars(default, schema_with = "schema::secret")]
    pub api_key: Option<SecretRef>,
    /// How much a reasoning model thinks. Default: the provider's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_effort: Option<ReasoningEffort>,
    /// Tokens that one answer may have. Default: the provider's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_output_tokens: Option<u32>,
    /// Randomness of answers. Default: the provider's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 2.0))]
    pub temperature: Option<f64>,
}

/// How much a reasoning model thinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReasoningEffort {
    /// Not at all.
    None,
    /// As little as it can.
    Minimal,
    /// A little.
    Low,
    /// The usual.
    Medium,
    /// Much.
    High,
    /// As much as it can.
    Xhigh,
}

impl ReasoningEffort {
    /// Every level with its name, in rising order.
    pub const ALL: [(&'static str, Self); 6] = [
        ("none", Self::None),
        ("minimal", Self::Minimal),
        ("low", Self::Low),
        ("medium", Self::Medium),
        ("high", Self::High),
        ("xhigh", Self::Xhigh),
    ];

    /// Returns the name of the level.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Xhigh => "xhigh",
        }
    }
}

/// A model and who serves it, written as `openai:gpt-5`.
///
/// ```
/// use cofferdam_manifest::ModelChoice;
///
/// let model: ModelChoice = "scripted:script.jsonl".parse()?;
/// assert_eq!(model, ModelChoice::Scripted { file: "script.jsonl".into() });
/// # Ok::<(), cofferdam_manifest::ModelChoiceError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ModelChoice {
    /// `scripted:FILE`: answers from a file, without any network.
    Scripted {
        /// Path on the host, relative to the directory of this file.
        file: String,
    },
    /// `openai:NAME`: a model behind the Responses API.
    OpenAi {
        /// The provider's name of the model.
        name: String,
    },
    /// `chat:NAME`: a model behind a Chat Completions API.
    Chat {
        /// The server's name of the model.
        name: String,
    },
}

/// Why a text is no model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} names no model; write \"scripted:FILE\", \"openai:NAME\" or \"chat:NAME\"")]
pub struct ModelChoiceError {
    /// The text that was given.
    pub text: String,
}

impl FromStr for ModelChoice {
    type Err = ModelChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ModelChoiceError { text: text.to_owned() };
        let (provider, name) = text.split_once(':').ok_or_else(error)?;
        if name.is_empty() || name.contains(char::is_control) {
            return Err(error());
        }
        let name = name.to_owned();
        match provider {
            "scripted" => Ok(Self::Scripted { file: name }),
            "openai" => Ok(Self::OpenAi { name }),
            "chat" => Ok(Self::Chat { name }),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for ModelChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scripted { file } => write!(f, "scripted:{file}"),
            Self::OpenAi { name } => write!(f, "openai:{name}"),
            Self::Chat { name } => write!(f, "chat:{name}"),
        }
    }
}

impl Serialize for ModelChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for ModelChoice {
    fn schema_name() -> Cow<'static, str> {
        "ModelChoice".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A model and who serves it: `scripted:FILE`, `openai:NAME` or `chat:NAME`.",
            "type": "string",
            "pattern": "^(scripted|openai|chat):.+$",
        })
    }
}
