import type { CallRequest } from '#calls/call.ts'
import type { ChatBody } from '#contracts/chat.ts'
import fc from 'fast-check'
import type { ScriptedRoute } from './fault-world.ts'

/** A rule of the sandbox for one request: empty for a healthy answer. */
export type Fault = Readonly<Record<string, unknown>>

export interface ScriptRoute {
  readonly balanceClass: 'direct' | 'credit'
  /** Of its requests, in order; those beyond are healthy. */
  readonly faults: readonly Fault[]
  /** Hidden reasoning before each answer. */
  readonly reasoning: boolean
  /** False: its answers come in one piece. */
  readonly streams: boolean
  /** In nano per 1 000 000 tokens. */
  readonly input: bigint
  readonly output: bigint
}

/** What goes wrong with one call, and what is asked of it. */
export interface FaultScript {
  readonly routes: readonly ScriptRoute[]
  readonly mayRepeat: number
  readonly body: ChatBody
  readonly listens: boolean
  /** There is no credit. */
  readonly isPoor: boolean
}

/** A route that hangs is left after this: long enough for what is healthy on a busy machine, mostly. */
const HUNG_MS = 2_000
/** Longer than a call waits by itself, and shorter than what makes it go on to another route. */
export const LONG_RETRY_MS = 30_000

const begun: readonly Fault[] = [
  {},
  { hang: true },
  { hangAfterHeaders: true },
  { hangAfterChunks: 2 },
  { cutBeforeHeaders: true },
  { cutStreamAfterChunks: 0 },
  { cutStreamAfterChunks: 2 },
  { endStreamAfterChunks: 0 },
  { endStreamAfterChunks: 3 },
  { errorAfterChunks: 0 },
  { errorAfterChunks: 2 },
  { garbage: 'not-json' },
  { garbage: 'not-completion', bills: true },
  { garbage: 'invalid-sse' },
  { emptyChoices: true },
  { contentFilter: true },
  { usageMissing: true },
  { usageWrong: 'negative' },
  { usageWrong: 'strings' },
  { usageMultiplier: 2 },
  { usageMultiplier: 0.5 },
  { promptMultiplier: 9 },
  { extraCompletionTokens: 30 },
  { overlongTokens: 40 },
  { delayFirstByteMs: 100 },
  { delayPerChunkMs: 5 },
]
const refused: readonly Fault[] = [
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
].map((kind) => ({ [kind]: true }))
const patient: readonly Fault[] = [
  { rateLimit: true, retryAfterMs: 60 },
  { rateLimit: true, retryAfterMs: 1_000, retryAfterAs: 'seconds' },
  { overloaded: true, retryAfterMs: 1_000, retryAfterAs: 'date' },
  { rateLimit: true, retryAfterMs: LONG_RETRY_MS },
  { rateLimit: true, retryAfterMs: 3_600_000 },
]

const fault = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(...begun) },
  { weight: 2, arbitrary: fc.constantFrom(...refused, ...patient) },
)
const price = fc.bigInt({ min: 1n, max: 20_000_000_000n })
const route: fc.Arbitrary<ScriptRoute> = fc
  .record({
    balanceClass: fc.constantFrom('direct', 'credit'),
    faults: fc.array(fault, { minLength: 1, maxLength: 5, size: 'max' }),
    reasoning: fc.boolean(),
    streams: fc.oneof({ weight: 3, arbitrary: fc.constant(true) }, fc.constant(false)),
    input: price,
    output: price,
  })
  // In place of an answer in one piece it is a plain 500, which bills nothing anywhere but in the sandbox.
  .map((each) => ({ ...each, faults: each.faults.filter((one) => each.streams || !('errorAfterChunks' in one)) }))

const tool = { name: 'search', parameters: { type: 'object', properties: { query: { type: 'string' } } } }
const prompt = fc
  .tuple(fc.string({ unit: 'grapheme', maxLength: 300 }), fc.constantFrom('When was the mill built?', 'Use search.'))
  .map(([text, question]) => `<passage id="p1">The mill was built in 1711. ${text}</passage> ${question}`)
const body: fc.Arbitrary<ChatBody> = fc
  .record({ prompt, maxTokens: fc.constantFrom(1, 8, 60, 200), usesTools: fc.boolean() })
  .map(({ prompt: content, maxTokens, usesTools }) => ({
    messages: [{ role: 'user', content }],
    maxTokens,
    ...(usesTools && { tools: [tool] }),
  }))

export const faultScript: fc.Arbitrary<FaultScript> = fc.record({
  routes: fc.array(route, { minLength: 1, maxLength: 3, size: 'max' }),
  mayRepeat: fc.integer({ min: 0, max: 3 }),
  body,
  listens: fc.boolean(),
  isPoor: fc.oneof({ weight: 4, arbitrary: fc.constant(false) }, fc.constant(true)),
})

/** The routes of a script, with upstream models of their own. */
export function routesOf(script: FaultScript, name: string): readonly ScriptedRoute[] {
  return script.routes.map(({ balanceClass, faults, reasoning, streams, input, output }, index) => ({
    model: `${name}-${index}`,
    prices: { input: decimalOf(input), output: decimalOf(output) },
    sandbox: {
      faults: faults.map((each) => ({ ...each, times: 1 })),
      ...(reasoning && { reasoningTokens: 20 }),
    },
    route: {
      balanceClass,
      capabilities: { reasoning, streaming: streams },
      ...(faults.some((each) => JSON.stringify(each).includes('hang')) && { timeoutMs: HUNG_MS }),
    },
  }))
}

/** What a script asks of its call. */
export function choicesOf({ body: asked, mayRepeat, listens }: FaultScript): Partial<CallRequest> {
  return { body: asked, mayRepeat, ...(listens && { onDelta: () => {} }) }
}

function decimalOf(nano: bigint): string {
  const digits = nano.toString().padStart(10, '0')
  return `${digits.slice(0, -9)}.${digits.slice(-9)}`
}
