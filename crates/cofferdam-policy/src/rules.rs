//! [`RulePolicy`]: a list of rules. All rules that match are heard and the strictest wins, so the order of a list never
//! opens anything.

use serde::{Deserialize, Serialize};

use crate::{Decision, Policy, PolicyRequest, Verdict};

/// One rule: which calls it matches and what it says of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The tool's name; `*` stands for any run of characters.
    pub tool: String,
    /// Match only calls that write (`true`) or only those that do not (`false`). Default: both.
    #[serde(default)]
    pub writes: Option<bool>,
    /// Match only calls that may reach the network (`true`) or only those that cannot (`false`). Default: both.
    #[serde(default)]
    pub network: Option<bool>,
    /// What is to happen.
    pub decision: Verdict,
    /// Why; shown to the model and kept in the audit trail.
    pub reason: String,
}

impl Rule {
    fn new(tool: impl Into<String>, decision: Verdict, reason: impl Into<String>) -> Self {
        Self { tool: tool.into(), writes: None, network: None, decision, reason: reason.into() }
    }

    /// Makes a rule that denies every call of a tool.
    pub fn deny(tool: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(tool, Verdict::Deny, reason)
    }

    /// Makes a rule that asks before every call of a tool.
    pub fn ask(tool: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(tool, Verdict::Ask, reason)
    }

    fn matches(&self, request: &PolicyRequest<'_>) -> bool {
        matches_glob(self.tool.as_bytes(), request.tool.as_bytes())
            && self.writes.is_none_or(|writes| writes == request.effects.writes)
            && self.network.is_none_or(|network| network == request.effects.network)
    }
}

/// Decides by rules: the strictest that matches wins; a call that none matches is allowed.
///
/// Allowing by default is safe because an allowed command still runs sealed; deny by default is one rule on `*`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RulePolicy {
    rules: Vec<Rule>,
}

impl RulePolicy {
    /// Makes a policy of rules.
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self { rules: rules.into_iter().collect() }
    }
}

impl Policy for RulePolicy {
    fn decide(&self, request: &PolicyRequest<'_>) -> Decision {
        let mut matching: Vec<_> = self.rules.iter().filter(|rule| rule.matches(request)).collect();
        // A stable sort: among equally strict rules the first of the list comes first.
        matching.sort_by_key(|rule| std::cmp::Reverse(rule.decision));
        Decision {
            verdict: matching.first().map_or(Verdict::Allow, |rule| rule.decision),
            reasons: matching.iter().map(|rule| rule.reason.clone()).collect(),
        }
    }
}

/// Matches with `*` for any run of bytes; linear in the name for each star, so no pattern is costly.
fn matches_glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            retry = Some((p, n));
            p += 1;
        } else if p < pattern.len() && pattern[p] == name[n] {
            p += 1;
            n += 1;
        } else if let Some((star, from)) = retry {
            retry = Some((star, from + 1));
            p = star + 1;
            n = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use cofferdam_core::{EffectClass, Effects};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn globs() {
        let check = |pattern: &str, name: &str, expect: bool| {
            assert_eq!(
                matches_glob(pattern.as_bytes(), name.as_bytes()),
                expect,
                "{pattern} {name}"
            );
        };
        check("*", "", true);
        check("", "", true);
        check("", "a", false);
        check("mcp__*", "mcp__x", true);
        check("mcp__*", "mcp_x", false);
        check("*_command", "exec_command", true);
        check("a*b*c", "aXbYbZc", true);
        check("a*b*c", "aXbYbZ", false);
        check("exec", "exec_command", false);
    }

    #[test]
    fn the_strictest_matching_rule_wins() {
        let mut ask_writes = Rule::ask("*", "it writes");
        ask_writes.writes = Some(true);
        let mut deny_network = Rule::deny("*", "no network");
        deny_network.network = Some(true);
        let policy = RulePolicy::new([ask_writes, deny_network]);
        let check = |writes, network, verdict, reasons: &[&str]| {
            let effects = Effects { class: EffectClass::Unknown, writes, network };
            let decision = policy.decide(&PolicyRequest { tool: "t", effects });
            assert_eq!(
                (decision.verdict, decision.reasons),
                (verdict, reasons.iter().map(ToString::to_string).collect())
            );
        };
        check(false, false, Verdict::Allow, &[]);
        check(true, false, Verdict::Ask, &["it writes"]);
        check(true, true, Verdict::Deny, &["no network", "it writes"]);
        check(false, true, Verdict::Deny, &["no network"]);
    }

    proptest! {
        #[test]
        fn order_never_changes_the_verdict(
            verdicts in proptest::collection::vec(0..3_u8, 0..6), rotate in 0..6_usize
        ) {
            let rules: Vec<_> = verdicts
                .iter()
                .map(|v| Rule::new("*", [Verdict::Allow, Verdict::Ask, Verdict::Deny][usize::from(*v)], "r"))
                .collect();
            let mut turned = rules.clone();
            if !turned.is_empty() {
                let by = rotate % turned.len();
                turned.rotate_left(by);
            }
            let request = PolicyRequest { tool: "x", effects: Effects::PURE };
            prop_assert_eq!(
                RulePolicy::new(rules).decide(&request).verdict,
                RulePolicy::new(turned).decide(&request).verdict
            );
        }
    }
}
