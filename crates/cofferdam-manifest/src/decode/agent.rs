//! Reads an agent file.

use super::{
    Fields, choice, flag, host_path, list, manifest::manifest, number, parsed, positive_duration,
    secret, text, whole, words, workspace_path,
};
use crate::{
    AgentFile, EvaluationSpec, FieldPath, ModelSpec, OutputSpec, PolicyDecision, PolicyRuleSpec,
    ReasoningEffort, RunLimits, ToolName, agent_file::VERSION, node::Node, problem::Problems,
    validate,
};

/// Reads the root of an agent file.
pub(crate) fn agent_file(
    node: &Node,
    path: &FieldPath,
    problems: &mut Problems,
) -> Option<AgentFile> {
    if *node == Node::Null {
        problems
            .value(path, "the file is empty; an agent file needs `version`, `name` and `model`");
        return None;
    }
    let mut fields = Fields::open(node, path, problems)?;
    let version = fields.required("version", "1", version);
    let name = fields.required("name", "my-agent", agent_name);
    let description = fields.optional("description", words);
    let instructions = fields.optional("instructions", words);
    let task = fields.optional("task", words);
    let model = fields.required("model", "{default: \"openai:NAME\"}", model);
    let tools = fields.optional("tools", |node, path, problems| {
        list(node, path, problems, |node, path, problems| {
            choice(node, path, problems, &ToolName::ALL)
        })
    });
    let policy = fields.optional("policy", |n, path, p| list(n, path, p, policy_rule));
    let limits = fields.optional("limits", limits);
    let workspace = fields.optional("workspace", manifest);
    let outputs = fields.optional("outputs", |n, path, p| list(n, path, p, output));
    let evaluations = fields.optional("evaluations", |n, path, p| list(n, path, p, evaluation));
    fields.close();
    let agent = AgentFile {
        version: version?,
        name: name?,
        description,
        instructions,
        task,
        model: model?,
        tools,
        policy: policy.unwrap_or_default(),
        limits: limits.unwrap_or_default(),
        workspace: workspace.unwrap_or_default(),
        outputs: outputs.unwrap_or_default(),
        evaluations: evaluations.unwrap_or_default(),
    };
    // A part that was left out for its own problem would only cause follow-up problems.
    if problems.found.is_empty() {
        validate::agent_file(&agent, problems);
    }
    Some(agent)
}

/// Reads the version of the form.
pub(super) fn version(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<u32> {
    if *node == Node::Integer(VERSION.into()) {
        return Some(VERSION);
    }
    problems.value(path, format!("this version is not known here; write `version: {VERSION}`"));
    None
}

fn agent_name(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<String> {
    let name = text(node, path, problems)?;
    if name.len() > 64
        || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
        || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    {
        problems.value(
            path,
            "a name has 1 to 64 letters, digits, `-`, `_` and `.`, and starts with a letter or digit",
        );
        return None;
    }
    Some(name)
}

fn model(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<ModelSpec> {
    let mut fields = Fields::open(node, path, problems)?;
    let default = fields.required("default", "\"openai:NAME\"", parsed);
    let live = fields.optional("live", parsed);
    let base_url = fields.optional("base_url", base_url);
    let api_key = fields.optional("api_key", secret);
    let reasoning_effort = fields.optional("reasoning_effort", |node, path, problems| {
        choice(node, path, problems, &ReasoningEffort::ALL)
    });
    let max_output_tokens =
        fields.optional("max_output_tokens", |n, path, p| whole(n, path, p, 1..=u32::MAX));
    let temperature = fields.optional("temperature", |n, path, p| number(n, path, p, 0.0..=2.0));
    fields.close();
    Some(ModelSpec {
        default: default?,
        live,
        base_url,
        api_key,
        reasoning_effort,
        max_output_tokens,
        temperature,
    })
}

fn base_url(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<String> {
    let url = words(node, path, problems)?;
    if let Err(message) = validate::http_url(&url) {
        problems.value(path, message);
        return None;
    }
    Some(url)
}

fn policy_rule(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<PolicyRuleSpec> {
    let mut fields = Fields::open(node, path, problems)?;
    let tool = fields.required("tool", "\"*\"", words);
    let decision = fields.required("decision", "ask", |node, path, problems| {
        choice(node, path, problems, &PolicyDecision::ALL)
    });
    let reason = fields.optional("reason", words);
    fields.close();
    Some(PolicyRuleSpec { tool: tool?, decision: decision?, reason })
}

fn limits(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<RunLimits> {
    let mut fields = Fields::open(node, path, problems)?;
    let limits = RunLimits {
        max_turns: fields.optional("max_turns", |n, path, p| whole(n, path, p, 1..=u32::MAX)),
        max_tokens: fields.optional("max_tokens", |n, path, p| whole(n, path, p, 1..=u64::MAX)),
        wall_time: fields.optional("wall_time", positive_duration),
        tool_time: fields.optional("tool_time", positive_duration),
    };
    fields.close();
    Some(limits)
}

fn output(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<OutputSpec> {
    let mut fields = Fields::open(node, path, problems)?;
    let place = fields.required("path", "path/in/workspace", workspace_path);
    let description = fields.optional("description", words);
    let optional = fields.optional("optional", flag);
    fields.close();
    Some(OutputSpec { path: place?, description, optional: optional.unwrap_or_default() })
}

fn evaluation(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<EvaluationSpec> {
    let mut fields = Fields::open(node, path, problems)?;
    let name = fields.required("name", "accuracy", words);
    let output = fields.required("output", "path/in/workspace.jsonl", workspace_path);
    let expected = fields.required("expected", "path/of/truth.jsonl", host_path);
    let key =
        fields.required("key", "[id]", |node, path, problems| list(node, path, problems, words));
    let compare =
        fields.optional("compare", |node, path, problems| list(node, path, problems, words));
    fields.close();
    Some(EvaluationSpec {
        name: name?,
        output: output?,
        expected: expected?,
        key: key?,
        compare: compare.unwrap_or_default(),
    })
}
