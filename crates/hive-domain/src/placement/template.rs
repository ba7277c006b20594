//! What a group is made like where an agent or a task asks for one that is not there.

use super::alias_of;

/// Consumers of a group whose type has no template of its own.
pub const OTHER_CONSUMERS_MAX: u32 = 10;

/// Agent types with a template of their own, and how many consumers their groups have at most.
const TYPES: [(&str, u32); 8] = [
    ("architects", 5),
    ("backend_engineers", 15),
    ("frontend_developers", 12),
    ("qa_engineers", 8),
    ("devops_engineers", 6),
    ("security_engineers", 4),
    ("data_engineers", 6),
    ("general_agents", 20),
];

/// What a group of a type is made like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Its name, `<agent_type>_consumers`. Not a name where the type is too long or odd.
    pub group: String,
    /// The stream it reads, `agent_messages:<agent_type>`.
    pub stream: String,
    /// What its agents are.
    pub agent_type: String,
    /// Most consumers, at least 1.
    pub max_consumers: u32,
}

/// The template of a type, where it is one of the eight with a template of their own or stands for
/// one of them.
#[must_use]
pub fn has_template(kind: &str) -> Option<Template> {
    let agent_type = canonical(kind);
    let found = TYPES.iter().find(|(name, _)| *name == agent_type);
    found.map(|(_, max_consumers)| of(agent_type, *max_consumers))
}

/// The template of any type; what stands for another type has the other's.
#[must_use]
pub fn template(agent_type: &str) -> Template {
    has_template(agent_type).unwrap_or_else(|| of(agent_type, OTHER_CONSUMERS_MAX))
}

/// The type that a word stands for; itself where it stands for none.
pub(super) fn canonical(kind: &str) -> &str {
    alias_of(kind).unwrap_or(kind)
}

fn of(agent_type: &str, max_consumers: u32) -> Template {
    Template {
        group: format!("{agent_type}_consumers"),
        stream: format!("agent_messages:{agent_type}"),
        agent_type: agent_type.to_owned(),
        max_consumers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::ALIASES;

    #[test]
    fn the_types_of_the_guide_have_its_numbers() {
        let backend = template("backend_engineers");
        assert_eq!(
            backend,
            Template {
                group: "backend_engineers_consumers".to_owned(),
                stream: "agent_messages:backend_engineers".to_owned(),
                agent_type: "backend_engineers".to_owned(),
                max_consumers: 15,
            }
        );
        let most: Vec<u32> = TYPES
            .iter()
            .map(|(name, _)| template(name).max_consumers)
            .collect();
        assert_eq!(most, [5, 15, 12, 8, 6, 4, 6, 20]);
    }

    #[test]
    fn what_stands_for_a_type_has_its_template() {
        for (alias, kind) in ALIASES {
            assert_eq!(has_template(alias), has_template(kind), "{alias}");
            assert_eq!(has_template(alias).unwrap().agent_type, kind);
        }
    }

    #[test]
    fn another_type_has_a_template_but_none_of_its_own() {
        assert_eq!(has_template("poets"), None);
        let poets = template("poets");
        assert_eq!(
            (poets.group.as_str(), poets.max_consumers),
            ("poets_consumers", 10)
        );
    }
}
