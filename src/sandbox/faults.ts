/** How often a refusal strikes: every nth request that its rule applies to. */
export interface Frequency {
  readonly everyNth: number
}

export const refusalKinds = [
  'invalid',
  'contextLength',
  'promptFiltered',
  'wrongKey',
  'paymentRequired',
  'modelGone',
  'rateLimit',
  'quotaGone',
  'serverError',
  'badGateway',
  'overloaded',
  'siteOverloaded',
] as const
export type RefusalKind = (typeof refusalKinds)[number]

export const garbageKinds = ['not-json', 'not-completion', 'invalid-sse'] as const
export type GarbageKind = (typeof garbageKinds)[number]

export const wrongUsageKinds = ['negative', 'strings'] as const
export type WrongUsageKind = (typeof wrongUsageKinds)[number]

export const retryAfterForms = ['both', 'ms', 'seconds', 'date'] as const
export type RetryAfterForm = (typeof retryAfterForms)[number]

/** What goes wrong with a request. An empty object is a healthy answer. */
export interface Faults extends Partial<Readonly<Record<RefusalKind, Frequency>>> {
  /** Sent with refusals: by default as `retry-after-ms` and as `retry-after` in seconds. */
  readonly retryAfterMs?: number
  readonly retryAfterAs?: RetryAfterForm
  /** Accepts the request and never answers. */
  readonly hang?: boolean
  /** Sends the headers of an answer, and never a byte of it. */
  readonly hangAfterHeaders?: boolean
  /** Streams this many pieces of the answer, and then nothing more. */
  readonly hangAfterChunks?: number
  readonly delayFirstByteMs?: number
  readonly delayPerChunkMs?: number
  /** Destroys the socket when the request was read and work had begun. */
  readonly cutBeforeHeaders?: boolean
  /** Streams this many pieces of the answer, then destroys the socket. An answer in one body is cut at once. */
  readonly cutStreamAfterChunks?: number
  /** Streams this many pieces, then ends the response as if that were all: no finish reason, no usage. */
  readonly endStreamAfterChunks?: number
  /** Streams this many pieces, then an error object. An answer in one body is a 500. */
  readonly errorAfterChunks?: number
  readonly garbage?: GarbageKind
  /** Whether the request is billed; by default garbage is not, and everything else that began is. */
  readonly bills?: boolean
  readonly usageMissing?: boolean
  /** Reports so many times the tokens it bills. */
  readonly usageMultiplier?: number
  /** Reports what no count of tokens can be. */
  readonly usageWrong?: WrongUsageKind
  /** Counts, reports and bills so many times the prompt's tokens, as a provider with another tokenizer does. */
  readonly promptMultiplier?: number
  /** Reports and bills so many output tokens above those sent, even beyond `max_tokens`, as hidden reasoning does. */
  readonly extraCompletionTokens?: number
  /** Sends, reports and bills so many tokens beyond `max_tokens`. */
  readonly overlongTokens?: number
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

export interface CountedRule {
  readonly rule: FaultRule
  /** Requests it applied to. */
  seen: number
}

/** Scripts that came with requests are counted by their text; beyond this many, all start again. */
const MOST_SCRIPTS = 2000

/** Which faults strike which request: of all the rules that may, the first that applies counts. */
export class FaultBook {
  readonly #configured: ReadonlyMap<string, readonly CountedRule[]>
  readonly #set = new Map<string, readonly CountedRule[]>()
  readonly #scripts = new Map<string, readonly CountedRule[]>()

  constructor(configured: ReadonlyMap<string, readonly FaultRule[]>) {
    this.#configured = new Map([...configured].map(([model, rules]) => [model, rules.map(startCounting)]))
  }

  /** Rules set at run time go before the configured ones. */
  set(model: string, rules: readonly FaultRule[]): void {
    this.#set.set(model, rules.map(startCounting))
  }

  /** Back to what is configured. */
  clear(model: string): void {
    this.#set.delete(model)
  }

  /** The rules of a script, which go before all others; equal scripts of one model count together. */
  script(key: string, parse: () => readonly FaultRule[]): readonly CountedRule[] {
    const known = this.#scripts.get(key)
    if (known !== undefined) return known
    const rules = parse().map(startCounting)
    if (this.#scripts.size >= MOST_SCRIPTS) this.#scripts.clear()
    this.#scripts.set(key, rules)
    return rules
  }

  /** Counts the request and tells what goes wrong with it. */
  take(model: string, text: string, scripted: readonly CountedRule[]): Faults {
    const rules = [...scripted, ...(this.#set.get(model) ?? []), ...(this.#configured.get(model) ?? [])]
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

function startCounting(rule: FaultRule): CountedRule {
  return { rule, seen: 0 }
}

function struckFaults({ rule, seen }: CountedRule): Faults {
  const spared = refusalKinds.filter((kind) => {
    const frequency = rule[kind]
    return frequency !== undefined && seen % frequency.everyNth !== 0
  })
  return Object.fromEntries(Object.entries(rule).filter(([name]) => !spared.some((kind) => kind === name)))
}
