import { AnswerTooLong } from './answer-choice.ts'
import type { AnswerCollector } from './answer-collector.ts'
import { startClock, type AttemptClock, type AttemptTimes } from './attempt-clock.ts'
import { failure, type Failure } from './failure.ts'
import { parseBody } from './json-text.ts'
import { outcomeOf, UpstreamError, type Problem } from './problem.ts'
import type { ProviderResult, Received } from './provider.ts'
import { retryAfterMs } from './retry-after.ts'
import { watchSending, type SendingWatch } from './sending.ts'
import type { UpstreamAnswer } from './upstream.ts'

/** How one upstream is spoken to. Errors are thrown here, and become outcomes in `exchange`. */
export interface Dialect {
  /** Sends the request: once, whatever happens. */
  send(signal: AbortSignal): Promise<UpstreamAnswer>
  /** The events of a streamed answer; left out where there are none. */
  events?(answer: UpstreamAnswer): AsyncIterable<unknown>
  /** Takes one event of a stream; false when it is none of this dialect. */
  addEvent?(event: unknown): boolean
  /** Takes an answer that came in one piece; false when it is none of this dialect. */
  addWhole(body: unknown): boolean
}

export interface Exchange extends AttemptTimes {
  readonly clientRequestId: string
  readonly answer: AnswerCollector
  readonly dialect: Dialect
  /** The request, as text. */
  readonly asked: () => string
  /** What a whole answer is worth. */
  readonly judge: (received: Received) => ProviderResult
  readonly nowMs: () => number
  /** Never appears in what is kept of an error. */
  readonly apiKey: string
}

/** How the conversation ended: with its last byte, or with an error. */
interface Ending {
  readonly error?: unknown
  /** Whether the answer's headers had come. */
  readonly isResponding: boolean
  /** Whether anything came that belongs to this dialect. */
  readonly isOfDialect: boolean
}

/** One request and its answer. Whatever happens, the result is an outcome. */
export async function exchange(settings: Exchange): Promise<ProviderResult> {
  if (settings.signal.aborted) return failure('aborted', 'aborted before sending', { sent: false })
  // An answer in one piece comes with its headers, when it is over.
  const clock = startClock(settings.dialect.events ? settings : { ...settings, firstByteTimeoutMs: undefined })
  const watch = watchSending(settings.clientRequestId)
  try {
    const ending = await converse(settings, clock)
    const received = settings.answer.received()
    // What the model has ended is whole, however its connection ended: sending it again would pay for it twice.
    if (settings.answer.isWhole) return settings.judge(received)
    return {
      ...failureOf(settings, { ending, clock, watch }),
      isTakenOn: isTakenOn(ending),
      received: withRequestId(settings, received, ending),
    }
  } finally {
    watch.release()
    clock.stop()
  }
}

async function converse({ dialect, answer }: Exchange, clock: AttemptClock): Promise<Ending> {
  let isResponding = false
  let isOfDialect = false
  try {
    const response = await dialect.send(clock.controller.signal)
    isResponding = true
    if (!dialect.events || (await isWhole(response))) {
      clock.noteFirstByte()
      return { isResponding, isOfDialect: dialect.addWhole(parseBody(await response.body.text())) }
    }
    for await (const event of dialect.events(response)) {
      clock.noteFirstByte()
      if (dialect.addEvent?.(event)) isOfDialect = true
      if (answer.isWhole) clock.noteRest()
    }
    return { isResponding, isOfDialect }
  } catch (error) {
    return { error, isResponding, isOfDialect }
  }
}

/** Some upstreams answer in one piece whatever was asked for, an error above all. */
async function isWhole({ headers, body }: UpstreamAnswer): Promise<boolean> {
  const type = headers.get('content-type') ?? ''
  if (/^application\/([\w.]+\+)?json\b/i.test(type)) return true
  return !/^text\/event-stream\b/i.test(type) && body.beginsAsJson()
}

interface Course {
  readonly ending: Ending
  readonly clock: AttemptClock
  readonly watch: SendingWatch
}

function failureOf(settings: Exchange, { ending, clock, watch }: Course): Failure {
  const ended = clock.ending()
  const sent = ending.isResponding || watch.mayHaveBeenSent()
  if (ended?.kind === 'aborted') return failure('aborted', 'aborted while the request was open', { sent })
  const problem = problemIn(ending)
  if (problem) return refusalOf(settings, ending, problem)
  const late = ended && `no ${ended.of} within ${ended.afterMs} ms`
  if (!sent) return failure('network_before_send', late ?? errorText(settings, ending.error), { sent })
  if (late) return failure('timeout', late)
  if (ending.error !== undefined) return failure(outcomeOfError(ending), errorText(settings, ending.error))
  return ending.isOfDialect
    ? failure('cut_stream', 'the stream ended before the answer did')
    : failure('malformed_answer', 'what came is no answer of this API')
}

/** Whoever began an answer, or wrote more than any answer has, was at work. */
function isTakenOn({ isOfDialect, error }: Ending): boolean {
  return isOfDialect || error instanceof AnswerTooLong
}

function problemIn({ error }: Ending): Problem | null {
  return error instanceof UpstreamError ? error.problem : null
}

/**
 * After the first event of an answer a problem is a cut, whatever its code says: the request was taken on, and what came so
 * far may be billed, if it is only the prompt.
 */
function refusalOf(settings: Exchange, { isOfDialect }: Ending, problem: Problem): Failure {
  const outcome = outcomeOf(problem, settings.asked())
  const isCut = (isOfDialect || settings.answer.hasBegun) && outcome !== 'content_filter'
  return failure(isCut ? 'cut_stream' : outcome, withoutKey(settings, problem.message), {
    httpStatus: problem.status,
    retryAfterMs: retryAfterMs(problem.headers, settings.nowMs()),
  })
}

/** What is no garbage is a connection that died, or an answer that broke off. */
function outcomeOfError(ending: Ending): Failure['outcome'] {
  if (ending.error instanceof AnswerTooLong || ending.error instanceof SyntaxError) return 'malformed_answer'
  return ending.isResponding ? 'cut_stream' : 'network_after_send'
}

/** As deep as an error is wrapped. */
const MAX_CAUSES = 6

function causesOf(error: unknown): readonly Error[] {
  const chain: Error[] = []
  for (let each = error; each instanceof Error && chain.length < MAX_CAUSES; each = each.cause) {
    chain.push(each)
    if (each instanceof AggregateError) chain.push(...each.errors.filter((one) => one instanceof Error))
  }
  return chain
}

function errorText(settings: Exchange, error: unknown): string {
  const texts = causesOf(error).map((each) => each.message)
  return withoutKey(settings, [...new Set(texts.length > 0 ? texts : [String(error)])].join(': '))
}

/** Shorter keys are placeholders for upstreams that want none, and may be any word. */
const LEAST_SECRET = 8

/** Some upstreams repeat the key that they refuse. */
function withoutKey({ apiKey }: Exchange, text: string): string {
  return apiKey.length < LEAST_SECRET ? text : text.replaceAll(apiKey, '…')
}

/** A refusal's own id is what a provider's support asks for. */
function withRequestId(settings: Exchange, received: Received, ending: Ending): Received {
  if (received.providerRequestId !== null) return received
  const headers = problemIn(ending)?.headers
  const id = headers?.get('request-id') ?? headers?.get('x-request-id')
  return id ? { ...received, providerRequestId: withoutKey(settings, id).slice(0, 200) } : received
}
