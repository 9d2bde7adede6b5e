import { isRecord } from './json.ts'

/** How often a refusal strikes: every nth request that its rule applies to. */
export interface Frequency {
  readonly everyNth: number
}

export const refusalKinds = ['rateLimit', 'serverError', 'overloaded', 'contextLength'] as const
export type RefusalKind = (typeof refusalKinds)[number]

export const garbageKinds = ['not-json', 'not-completion', 'invalid-sse'] as const
export type GarbageKind = (typeof garbageKinds)[number]

/** What goes wrong with a request. An empty object is a healthy answer. */
export interface Faults {
  /** 429. */
  readonly rateLimit?: Frequency
  /** 500. */
  readonly serverError?: Frequency
  /** 503. */
  readonly overloaded?: Frequency
  /** 400 `context_length_exceeded`. */
  readonly contextLength?: Frequency
  /** Sent with 429 and 503 as `retry-after-ms` and `retry-after`. */
  readonly retryAfterMs?: number
  /** Accepts the request and never answers. */
  readonly hang?: boolean
  readonly delayFirstByteMs?: number
  readonly delayPerChunkMs?: number
  /** Streams this many pieces of the answer, then destroys the socket. An answer in one body is cut at once. */
  readonly cutStreamAfterChunks?: number
  readonly garbage?: GarbageKind
  /** Whether the request is billed; by default garbage is not, and everything else that began is. */
  readonly bills?: boolean
  readonly usageMissing?: boolean
  /** Reports so many times the tokens it bills. */
  readonly usageMultiplier?: number
  /** Counts, reports and bills so many times the prompt's tokens, as a provider with another tokenizer does. */
  readonly promptMultiplier?: number
  /** Reports and bills so many output tokens above those sent, even beyond `max_tokens`, as hidden reasoning does. */
  readonly extraCompletionTokens?: number
  readonly emptyChoices?: boolean
  /** Stops after the first piece with finish reason `content_filter`. */
  readonly contentFilter?: boolean
}

export interface FaultRule extends Faults {
  /** Applies to so many requests, then no more. */
  readonly times?: number
  /** Only requests whose message text contains this. */
  readonly matching?: string
}

interface CountedRule {
  readonly rule: FaultRule
  /** Requests it applied to. */
  seen: number
}

const numberFields = {
  retryAfterMs: 0,
  delayFirstByteMs: 0,
  delayPerChunkMs: 0,
  cutStreamAfterChunks: 0,
  usageMultiplier: 0,
  promptMultiplier: 0,
  extraCompletionTokens: 0,
  times: 1,
} as const satisfies Partial<Record<keyof FaultRule, number>>
const booleanFields = ['hang', 'bills', 'usageMissing', 'emptyChoices', 'contentFilter'] as const

/** Which faults strike which request. Rules set at run time go before the configured ones; the first that applies counts. */
export class FaultBook {
  readonly #configured: ReadonlyMap<string, readonly CountedRule[]>
  readonly #set = new Map<string, readonly CountedRule[]>()

  constructor(configured: ReadonlyMap<string, readonly FaultRule[]>) {
    this.#configured = new Map([...configured].map(([model, rules]) => [model, rules.map(startCounting)]))
  }

  set(model: string, rules: readonly FaultRule[]): void {
    this.#set.set(model, rules.map(startCounting))
  }

  /** Back to what is configured. */
  clear(model: string): void {
    this.#set.delete(model)
  }

  /** Counts the request and tells what goes wrong with it. */
  take(model: string, text: string): Faults {
    const rules = [...(this.#set.get(model) ?? []), ...(this.#configured.get(model) ?? [])]
    const counted = rules.find(({ rule, seen }) => {
      return (
        seen < (rule.times ?? Number.POSITIVE_INFINITY) && (rule.matching === undefined || text.includes(rule.matching))
      )
    })
    if (counted === undefined) return {}
    counted.seen += 1
    return struckFaults(counted)
  }
}

export function refusalOf(faults: Faults): RefusalKind | null {
  return refusalKinds.find((kind) => faults[kind] !== undefined) ?? null
}

/** Reads one rule or a list of them; the error names the field that is wrong. */
export function parseFaultRules(value: unknown): readonly FaultRule[] {
  return (Array.isArray(value) ? value : [value]).map(parseRule)
}

function parseRule(value: unknown): FaultRule {
  if (!isRecord(value)) throw new TypeError('a fault rule must be an object')
  const rule: Record<string, unknown> = {}
  for (const [name, field] of Object.entries(value)) rule[name] = parseField(name, field)
  return rule
}

function parseField(name: string, value: unknown): unknown {
  if (name in numberFields) {
    const least = Object.entries(numberFields).find(([field]) => field === name)?.[1] ?? 0
    if (typeof value === 'number' && Number.isFinite(value) && value >= least) return value
    throw new TypeError(`${name} must be a number of at least ${least}`)
  }
  if (booleanFields.some((field) => field === name)) {
    if (typeof value === 'boolean') return value
    throw new TypeError(`${name} must be true or false`)
  }
  if (refusalKinds.some((kind) => kind === name)) {
    const everyNth = isRecord(value) ? (value['everyNth'] ?? 1) : value === true ? 1 : null
    if (typeof everyNth === 'number' && Number.isInteger(everyNth) && everyNth >= 1) return { everyNth }
    throw new TypeError(`${name} must be true or { "everyNth": n }`)
  }
  if (name === 'garbage') {
    const kind = garbageKinds.find((each) => each === value)
    if (kind !== undefined) return kind
    throw new TypeError(`garbage must be one of ${garbageKinds.join(', ')}`)
  }
  if (name === 'matching' && typeof value === 'string') return value
  throw new TypeError(`unknown or invalid fault field: ${name}`)
}

function startCounting(rule: FaultRule): CountedRule {
  return { rule, seen: 0 }
}

function struckFaults({ rule, seen }: CountedRule): Faults {
  const spared = refusalKinds.filter((kind) => rule[kind] !== undefined && seen % rule[kind].everyNth !== 0)
  return Object.fromEntries(Object.entries(rule).filter(([name]) => !spared.some((kind) => kind === name)))
}
