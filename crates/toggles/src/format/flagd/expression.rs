//! JSON logic, compiled: what a targeting asks for.

use std::{borrow::Cow, fmt, sync::Arc};

use indexmap::IndexMap;

use super::{Generation, fractional::Fractional};
use crate::{
    engine::{Operand, WordSet},
    format::reading::Tree,
    model::{Comparison, Fault, FaultCode, Variant, VersionDialect},
    value::{Name, Value},
};

/// A compiled expression.
#[derive(Debug)]
pub(super) enum Expr {
    Literal(Literal),
    List(Box<[Expr]>),
    Var(Box<Var>),
    /// A path that is computed, and a default.
    VarAt(Box<[Expr]>),
    Missing(Box<[Expr]>),
    MissingSome(Box<[Expr]>),
    If(Box<[Expr]>),
    And(Box<[Expr]>),
    Or(Box<[Expr]>),
    Not(Box<Expr>),
    Truthy(Box<Expr>),
    Equal {
        sides: Box<[Expr; 2]>,
        strict: bool,
        negate: bool,
    },
    Order {
        comparison: Comparison,
        parts: Box<[Expr]>,
    },
    In(Box<[Expr; 2]>),
    /// A plain variable that is, or is not, one of these texts.
    TextIs(Box<TextTest>),
    /// In a list of many texts.
    InSet(Box<(Expr, WordSet)>),
    Cat(Box<[Expr]>),
    Arithmetic(Arithmetic, Box<[Expr]>),
    Substr(Box<[Expr]>),
    Merge(Box<[Expr]>),
    /// The list, and what is asked of each element.
    Each(Each, Box<[Expr; 2]>),
    Reduce(Box<[Expr; 3]>),
    Affix {
        end: bool,
        parts: Box<[Expr]>,
    },
    Version(Box<[Expr]>),
    /// The same with an operator and a version that are known.
    VersionIs(Box<VersionTest>),
    Fractional(Box<Fractional>),
    /// One of the document's evaluators.
    Shared(Arc<Expr>),
    /// What can't be evaluated.
    Broken(Box<Fault>),
}

/// A value of the document. `variant`: the index of the flag's variant that its text names.
#[derive(Debug)]
pub(super) struct Literal {
    pub(super) value: Value,
    pub(super) variant: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Min,
    Max,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Each {
    Map,
    Filter,
    All,
    Some,
    None,
}

/// A value of the context (or, within `map` and its kin, of the element), by its path.
#[derive(Debug)]
pub(super) struct Var {
    pub(super) root: Root,
    /// The keys and list indexes below it.
    pub(super) path: Box<[Box<str>]>,
    pub(super) default: Option<Box<Expr>>,
}

impl Var {
    /// Whether it is an attribute as it is, or the targeting key: what a context has ready.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.root, Root::Attribute(_) | Root::TargetingKey)
            && self.path.is_empty()
            && self.default.is_none()
    }

    /// Whether it is the key of the flag that is evaluated.
    pub(super) fn is_flag_key(&self) -> bool {
        matches!(self.root, Root::FlagKey)
    }

    /// The whole path.
    pub(super) fn said(&self) -> String {
        let root = match &self.root {
            Root::Whole | Root::Element | Root::Supplied(_) => String::new(),
            Root::TargetingKey => "targetingKey".to_owned(),
            Root::Attribute(name) => name.text(),
            Root::FlagKey => "$flagd.flagKey".to_owned(),
            Root::Timestamp => "$flagd.timestamp".to_owned(),
            Root::Flagd => "$flagd".to_owned(),
        };
        let path = self.path.iter().map(|key| &**key);
        let parts: Vec<_> =
            Some(root.as_str()).filter(|root| !root.is_empty()).into_iter().chain(path).collect();
        parts.join(".")
    }
}

#[derive(Debug)]
pub(super) enum Root {
    /// Everything.
    Whole,
    /// The element that is looked at.
    Element,
    TargetingKey,
    Attribute(Name),
    /// `$flagd.flagKey`
    FlagKey,
    /// `$flagd.timestamp`
    Timestamp,
    /// `$flagd`
    Flagd,
    /// What the source of the flags supplies.
    Supplied(Value),
}

/// A plain variable compared with texts, by words that are ready on both sides.
#[derive(Debug)]
pub(super) struct TextTest {
    pub(super) var: Var,
    pub(super) texts: WordSet,
    /// What a value that is no text is compared with; `None`: it just does not satisfy it.
    pub(super) loosely: Option<Value>,
    pub(super) negate: bool,
}

#[derive(Debug)]
pub(super) struct VersionTest {
    pub(super) version: Expr,
    pub(super) operator: VersionOperator,
    pub(super) with: Operand,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VersionOperator {
    Compared(Comparison),
    SameMajor,
    SameMinor,
}

impl VersionOperator {
    pub(super) fn of(sign: &str) -> Option<Self> {
        Some(Self::Compared(match sign {
            "=" => Comparison::Equal,
            "!=" => Comparison::NotEqual,
            "<" => Comparison::Less,
            "<=" => Comparison::LessOrEqual,
            ">" => Comparison::Greater,
            ">=" => Comparison::GreaterOrEqual,
            "^" => return Some(Self::SameMajor),
            "~" => return Some(Self::SameMinor),
            _ => return None,
        }))
    }
}

/// flagd's dialect of versions.
pub(super) const VERSIONS: VersionDialect = VersionDialect::Prefixed;

/// From how many texts on a list is searched as a set.
const MANY: usize = 9;

/// What the expressions of one flag are compiled with.
pub(super) struct Compiler<'c> {
    pub(super) generation: Generation,
    pub(super) variants: &'c [Variant],
    pub(super) evaluators: &'c IndexMap<String, Arc<Expr>>,
    pub(super) supplied: Option<&'c Value>,
    /// Whether `{"$ref": …}` is replaced; it is not within evaluators.
    pub(super) refs: bool,
    /// What was found wrong: the last one of names that are not there, and problems.
    pub(super) unknown_evaluator: Option<String>,
    pub(super) problems: Vec<String>,
    /// Within `map` and its kin.
    pub(super) element: bool,
    pub(super) needs_time: bool,
}

impl Compiler<'_> {
    pub(super) fn expression(&mut self, json: &Tree<'_>) -> Expr {
        match json {
            Tree::Object(entries) => match entries.as_slice() {
                [(operator, operands)] => self.operation(operator, operands),
                _ => self.literal(json),
            },
            Tree::List(elements) if elements.iter().any(has_operations) => {
                Expr::List(elements.iter().map(|element| self.expression(element)).collect())
            }
            other => self.literal(other),
        }
    }

    fn literal(&self, json: &Tree<'_>) -> Expr {
        let value = Value::from(json);
        let variant = match &value {
            Value::List(_) | Value::Object(_) | Value::Null => None,
            scalar => scalar.scalar_text().and_then(|text| index_of(self.variants, &text)),
        };
        Expr::Literal(Literal { value, variant })
    }

    fn all(&mut self, operands: &Tree<'_>) -> Box<[Expr]> {
        match operands {
            Tree::List(operands) => operands.iter().map(|operand| self.expression(operand)).collect(),
            other => [self.expression(other)].into(),
        }
    }

    /// Exactly so many operands; absent ones are null.
    fn exactly<const N: usize>(&mut self, operands: &Tree<'_>) -> [Expr; N] {
        let mut operands = self.all(operands).into_iter();
        let null = || Expr::Literal(Literal { value: Value::Null, variant: None });
        std::array::from_fn(|_| operands.next().unwrap_or_else(null))
    }

    fn one(&mut self, operands: &Tree<'_>) -> Expr {
        let [operand] = self.exactly::<1>(operands);
        operand
    }

    /// The list, and the operation on each element of it.
    fn over<const N: usize>(&mut self, operands: &Tree<'_>) -> [Expr; N] {
        let absent = Tree::Null;
        let at = |index: usize| match operands {
            Tree::List(operands) => operands.get(index).unwrap_or(&absent),
            other if index == 0 => other,
            _ => &absent,
        };
        std::array::from_fn(|index| {
            let outer = self.element;
            self.element |= index == 1;
            let operand = self.expression(at(index));
            self.element = outer;
            operand
        })
    }

    fn operation(&mut self, operator: &str, operands: &Tree<'_>) -> Expr {
        let order = |comparison, parts| Expr::Order { comparison, parts };
        match operator {
            "var" => self.var(operands),
            "missing" => Expr::Missing(self.all(operands)),
            "missing_some" => Expr::MissingSome(self.all(operands)),
            "if" | "?:" => Expr::If(self.all(operands)),
            "and" => Expr::And(self.all(operands)),
            "or" => Expr::Or(self.all(operands)),
            "!" => Expr::Not(Box::new(self.one(operands))),
            "!!" => Expr::Truthy(Box::new(self.one(operands))),
            "==" => self.equal(operands, false, false),
            "!=" => self.equal(operands, false, true),
            "===" => self.equal(operands, true, false),
            "!==" => self.equal(operands, true, true),
            "<" => order(Comparison::Less, self.all(operands)),
            "<=" => order(Comparison::LessOrEqual, self.all(operands)),
            ">" => order(Comparison::Greater, self.all(operands)),
            ">=" => order(Comparison::GreaterOrEqual, self.all(operands)),
            "in" => self.within(operands),
            "cat" => Expr::Cat(self.all(operands)),
            "+" => Expr::Arithmetic(Arithmetic::Add, self.all(operands)),
            "-" => Expr::Arithmetic(Arithmetic::Subtract, self.all(operands)),
            "*" => Expr::Arithmetic(Arithmetic::Multiply, self.all(operands)),
            "/" => Expr::Arithmetic(Arithmetic::Divide, self.all(operands)),
            "%" => Expr::Arithmetic(Arithmetic::Remainder, self.all(operands)),
            "min" => Expr::Arithmetic(Arithmetic::Min, self.all(operands)),
            "max" => Expr::Arithmetic(Arithmetic::Max, self.all(operands)),
            "substr" => Expr::Substr(self.all(operands)),
            "merge" => Expr::Merge(self.all(operands)),
            "map" => Expr::Each(Each::Map, Box::new(self.over(operands))),
            "filter" => Expr::Each(Each::Filter, Box::new(self.over(operands))),
            "all" => Expr::Each(Each::All, Box::new(self.over(operands))),
            "some" => Expr::Each(Each::Some, Box::new(self.over(operands))),
            "none" => Expr::Each(Each::None, Box::new(self.over(operands))),
            "reduce" => Expr::Reduce(Box::new(self.over(operands))),
            "starts_with" => Expr::Affix { end: false, parts: self.all(operands) },
            "ends_with" => Expr::Affix { end: true, parts: self.all(operands) },
            "sem_ver" => self.version(operands),
            "fractional" => Expr::Fractional(Box::new(Fractional::new(self.all(operands), self.generation))),
            "$ref" if self.refs => {
                let name = operands.as_str().unwrap_or_default();
                if let Some(evaluator) = self.evaluators.get(name) {
                    self.needs_time = true;
                    return Expr::Shared(Arc::clone(evaluator));
                }
                self.unknown_evaluator = Some(name.to_owned());
                broken(format!("there is no evaluator `{name}`"))
            }
            unknown => {
                let unknown: String = unknown.chars().take(80).collect();
                self.problems
                    .push(format!("unknown operator `{unknown}`; where it is reached, the flag is an error"));
                broken(format!("unknown operator `{unknown}`"))
            }
        }
    }

    fn var(&mut self, operands: &Tree<'_>) -> Expr {
        let (path, default) = match operands {
            Tree::List(operands) => (operands.first(), operands.get(1)),
            other => (Some(other), None),
        };
        let path = match path {
            None | Some(Tree::Null) => Cow::Borrowed(""),
            Some(Tree::Text(path)) => Cow::Borrowed(&**path),
            Some(Tree::Number(index)) => Cow::Owned(index.to_string()),
            Some(_) => {
                self.needs_time = true;
                return Expr::VarAt(self.all(operands));
            }
        };
        let default = default.map(|default| Box::new(self.expression(default)));
        let (root, path) = self.root(&path);
        Expr::Var(Box::new(Var { root, path, default }))
    }

    fn root(&mut self, path: &str) -> (Root, Box<[Box<str>]>) {
        let mut parts = path.split('.').map(Box::<str>::from);
        if self.element {
            let path = if path.is_empty() { Box::default() } else { parts.collect() };
            return (Root::Element, path);
        }
        if path.is_empty() {
            self.needs_time = true;
            return (Root::Whole, Box::default());
        }
        let first = parts.next().unwrap_or_default();
        let root = match &*first {
            "$flagd" => {
                let mut below = path.split('.').skip(1);
                match (below.next(), below.next()) {
                    (Some("flagKey"), None) => return (Root::FlagKey, Box::default()),
                    (Some("timestamp"), None) => {
                        self.needs_time = true;
                        return (Root::Timestamp, Box::default());
                    }
                    _ => {
                        self.needs_time = true;
                        Root::Flagd
                    }
                }
            }
            name => match self.supplied.and_then(|supplied| supplied.get(name)) {
                Some(supplied) => Root::Supplied(supplied.clone()),
                None if name == "targetingKey" => Root::TargetingKey,
                None => Root::Attribute(Name::new(name)),
            },
        };
        (root, parts.collect())
    }

    fn equal(&mut self, operands: &Tree<'_>, strict: bool, negate: bool) -> Expr {
        let sides = match self.exactly(operands) {
            [Expr::Var(var), Expr::Literal(literal)] | [Expr::Literal(literal), Expr::Var(var)]
                if var.is_plain() =>
            {
                if let Some(text) = literal.value.as_str() {
                    let texts = WordSet::new([Name::new(text)]);
                    let loosely = (!strict).then_some(literal.value);
                    return Expr::TextIs(Box::new(TextTest { var: *var, texts, loosely, negate }));
                }
                [Expr::Var(var), Expr::Literal(literal)]
            }
            sides => sides,
        };
        Expr::Equal { sides: Box::new(sides), strict, negate }
    }

    fn within(&mut self, operands: &Tree<'_>) -> Expr {
        let [needle, hay] = self.exactly(operands);
        let texts = match &hay {
            Expr::Literal(Literal { value: Value::List(list), .. }) => {
                list.iter().map(|element| element.as_str().map(Name::new)).collect::<Option<Vec<_>>>()
            }
            _ => None,
        };
        match (needle, texts) {
            (Expr::Var(var), Some(texts)) if var.is_plain() => {
                let texts = WordSet::new(texts);
                Expr::TextIs(Box::new(TextTest { var: *var, texts, loosely: None, negate: false }))
            }
            (needle, Some(texts)) if texts.len() >= MANY => {
                Expr::InSet(Box::new((needle, WordSet::new(texts))))
            }
            (needle, _) => Expr::In(Box::new([needle, hay])),
        }
    }

    fn version(&mut self, operands: &Tree<'_>) -> Expr {
        let parts = self.all(operands);
        let known = match &*parts {
            [_, Expr::Literal(operator), Expr::Literal(with)] => operator
                .value
                .as_str()
                .and_then(VersionOperator::of)
                .zip(with.value.as_str().and_then(|with| Operand::parse(with, VERSIONS))),
            _ => None,
        };
        match known {
            // The operands are three, so there is a first one.
            Some((operator, with)) => match parts.into_iter().next() {
                Some(version) => Expr::VersionIs(Box::new(VersionTest { version, operator, with })),
                None => Expr::Version(Box::default()),
            },
            None => Expr::Version(parts),
        }
    }
}

/// Whether there is anything in it to evaluate.
fn has_operations(json: &Tree<'_>) -> bool {
    match json {
        Tree::Object(entries) => entries.len() == 1,
        Tree::List(elements) => elements.iter().any(has_operations),
        _ => false,
    }
}

fn broken(message: String) -> Expr {
    Expr::Broken(Box::new(Fault::new(FaultCode::ParseError, message)))
}

/// The index of the variant of this name.
pub(super) fn index_of(variants: &[Variant], name: &str) -> Option<u32> {
    variants.iter().position(|variant| *variant.name == *name).and_then(|index| u32::try_from(index).ok())
}

/// As the operators would be written.
impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Literal(literal) => return write!(f, "{}", literal.value),
            Self::Var(var) => return f.write_str(&var.said()),
            Self::List(_) => "list",
            Self::VarAt(_) => "var",
            Self::Missing(_) => "missing",
            Self::MissingSome(_) => "missing_some",
            Self::If(_) => "if",
            Self::And(_) => "and",
            Self::Or(_) => "or",
            Self::Not(_) => "!",
            Self::Truthy(_) => "!!",
            Self::Equal { strict, negate, .. } => match (strict, negate) {
                (false, false) => "==",
                (false, true) => "!=",
                (true, false) => "===",
                (true, true) => "!==",
            },
            Self::Order { comparison, .. } => comparison.sign(),
            Self::TextIs(test) => {
                let not = if test.negate { "not " } else { "" };
                return write!(f, "{} is {not}{}", test.var.said(), test.texts);
            }
            Self::In(_) | Self::InSet(_) => "in",
            Self::Cat(_) => "cat",
            Self::Arithmetic(..) => "arithmetic",
            Self::Substr(_) => "substr",
            Self::Merge(_) => "merge",
            Self::Each(..) => "each",
            Self::Reduce(_) => "reduce",
            Self::Affix { end: false, .. } => "starts_with",
            Self::Affix { end: true, .. } => "ends_with",
            Self::Version(_) | Self::VersionIs(_) => "sem_ver",
            Self::Fractional(_) => "fractional",
            Self::Shared(evaluator) => return evaluator.fmt(f),
            Self::Broken(fault) => return f.write_str(&fault.message),
        };
        f.write_str(name)
    }
}
