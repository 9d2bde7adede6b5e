/** The closed sets of words that stand in the database, on the wire and on the page alike. */

export const BALANCE_CLASSES = ['direct', 'credit'] as const
/** `direct`: premium money, accepted by every provider. `credit`: lower-cost credit, accepted by some. */
export type BalanceClass = (typeof BALANCE_CLASSES)[number]

export const GATES = ['open', 'frozen', 'closing', 'closed'] as const
/** An envelope's gate: only `open` lets a request begin. */
export type Gate = (typeof GATES)[number]

export const CERTAINTIES = ['billed', 'estimated', 'unknown'] as const
/** `billed`: from the provider's usage. `estimated`: from what was received. `unknown`: the answer died with its process. */
export type Certainty = (typeof CERTAINTIES)[number]

export const USES = ['useful', 'wasted'] as const
/** `useful`: its answer is the call's answer. */
export type Use = (typeof USES)[number]

export const KEY_SCOPES = ['calls', 'runs', 'read'] as const
export const OPERATOR_SCOPES = ['admin', 'read', 'installation'] as const
/** Of an operator's key of which nothing else is said. */
export const USUAL_OPERATOR_SCOPES = ['admin', 'read'] as const satisfies readonly (typeof OPERATOR_SCOPES)[number][]
/**
 * What a key opens. `calls`: the gateway. `runs`: starting and acting on runs, schedules, corpora, datasets and the limits of
 * its own runs. `read`: everything that it may see. `admin`, of an operator's key: every change. `installation`: besides, making
 * organisations.
 */
export type KeyScope = (typeof KEY_SCOPES)[number] | (typeof OPERATOR_SCOPES)[number]

export const LIMIT_SCOPES = ['organisation', 'project', 'key', 'run', 'step'] as const
/** What a limit is on. `step`: the first part of a call's path. */
export type LimitScope = (typeof LIMIT_SCOPES)[number]

export const LIMIT_MEASURES = ['money', 'tokens', 'calls'] as const
export type LimitMeasure = (typeof LIMIT_MEASURES)[number]

export const LIMIT_PERIODS = ['life', 'minute', 'hour', 'day', 'week', 'month'] as const
/** `life`: for ever; all others are windows of a calendar and a clock, in the limit's time zone. */
export type LimitPeriod = (typeof LIMIT_PERIODS)[number]

export const ON_EXHAUSTED = ['pause', 'downgrade', 'cancel'] as const
/** What a run does when its money ends. There is no default: the owner chooses. */
export type OnExhausted = (typeof ON_EXHAUSTED)[number]

export const STORAGES = ['full', 'hash_only'] as const
/** How prompts and answers of a project are kept. `hash_only`: their digests alone, once what they are of is over. */
export type Storage = (typeof STORAGES)[number]

/** What the audit log calls each administrative change. */
export const AUDIT_ACTIONS = [
  'attempt.void',
  'catalog.import',
  'deposit.approve',
  'deposit.make',
  'deposit.refuse',
  'deposit.reverse',
  'delivery.retry',
  'invoice.compare',
  'key.change',
  'key.create',
  'key.expire',
  'key.revoke',
  'key.rotate',
  'limit.change',
  'limit.retire',
  'limit.set',
  'organisation.change',
  'organisation.create',
  'price.import',
  'project.change',
  'project.create',
  'provider.change',
  'provider.create',
  'provider.delete',
  'quote.store',
  'reconciliation.run',
  'refund.make',
  'route.reset',
  'wallet.create',
  'webhook.change',
  'webhook.create',
  'webhook.delete',
] as const
export type AuditAction = (typeof AUDIT_ACTIONS)[number]
export const WHEN_EXHAUSTED = [...ON_EXHAUSTED, 'refuse'] as const
/** The same of any run: the calls of an external one are refused until money comes. */
export type WhenExhausted = (typeof WHEN_EXHAUSTED)[number]

/** What stands for the model of a run that is not meant for one. No catalog model can have this name. */
export const ANY_MODEL = '*'

export const CANCEL_MODES = ['now', 'wrap_up'] as const

export const TRANSFER_CODES = [
  'deposit',
  'reversal',
  'refund',
  'breakage',
  'top_up',
  'carve',
  'hold',
  'capture',
  'void',
  'expire',
  'return',
  'overage',
  'debt_payment',
  'correction',
] as const
/** What a customer's journal can say. */
export type TransferCode = (typeof TRANSFER_CODES)[number]
/** And what it never does: what a sale brought above its cost, and its cost in another currency. */
export type LedgerCode = TransferCode | 'margin' | 'cost_exchange'

/** Header that carries the call and the attempt to a provider: `<call id>:<attempt number>`. */
export const CLIENT_REQUEST_ID_HEADER = 'x-client-request-id'

/** What an upstream speaks: OpenAI's chat completions, Anthropic's Messages, or the first as OpenRouter extends it. */
export const PROVIDER_KINDS = ['openai', 'anthropic', 'openrouter'] as const
export type ProviderKind = (typeof PROVIDER_KINDS)[number]

/** How an OpenAI-compatible upstream wants the most output tokens to be called. */
export const MAX_TOKENS_FIELDS = ['max_tokens', 'max_completion_tokens'] as const
export type MaxTokensField = (typeof MAX_TOKENS_FIELDS)[number]

/** How much a model thinks before it answers; not every model knows every word. */
export const REASONING_EFFORTS = ['none', 'minimal', 'low', 'medium', 'high', 'xhigh', 'max'] as const
export type ReasoningEffort = (typeof REASONING_EFFORTS)[number]

/** Name of the workflow task queue unless configured otherwise. */
export const TASK_QUEUE = 'purser-runs'
