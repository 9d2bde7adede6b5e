import type { CallResult, HoldRefusal } from '#calls/call.ts'
import type { Engine } from '#calls/engine.ts'
import { tellExhausted } from '#db/external-run.ts'
import { refusedAgainst, type RefusedAgainst } from '#db/refusal-figures.ts'
import { formatNano } from '#domain/money.ts'
import type { Payer } from './payer.ts'
import { Refusal, type RefusalCode, type RefusalFigures } from './refusal.ts'

type NotAnswered = Exclude<CallResult, { readonly kind: 'answered' }>

const TOP_UP = 'Deposit into the wallet, top up the run, or raise the limit that is named; or send a smaller request.'
/** Where money does not help, and no window that ends. */
const RAISE_LIMIT = 'Send a smaller request, or have the limit raised that is named.'

/** What a client is told when the engine has no answer. */
export async function refusalOf(
  engine: Engine,
  payer: Payer,
  { model, result }: { readonly model: string; readonly result: NotAnswered },
): Promise<Refusal> {
  const { callId } = result
  switch (result.kind) {
    case 'exhausted':
      return refusalOfHold(engine, payer, { callId, refused: result.refusal })
    case 'waiting':
      // No client is kept waiting for a window, however soon it ends.
      if (result.refusal) return refusalOfHold(engine, payer, { callId, refused: result.refusal })
      return new Refusal('busy', 'The money or the routes are busy with other requests.', {
        callId,
        retryAfterSeconds: secondsUntil(result.untilMs, engine.nowMs()),
        remedy: 'Send the request again after Retry-After seconds.',
      })
    case 'gate':
      return gateRefusal(payer, result)
    case 'failed':
      return failureOf(model, result)
  }
}

/** What is told of a hold that was refused: which limit or pocket bound it, by how much, and what helps. */
async function refusalOfHold(
  engine: Engine,
  payer: Payer,
  { callId, refused }: { readonly callId: string; readonly refused: HoldRefusal },
): Promise<Refusal> {
  const against = await refusedAgainst(engine.db, payer.scope, refused.id)
  const figures = figuresOf(refused, against)
  const { limit, needed, remaining, resetsAt } = figures
  const unit = figures.currency ?? refused.measure
  if (payer.runId !== null) {
    const told = { callId, limit, needed, remaining, unit }
    await tellExhausted(engine.db, payer.scope, { runId: payer.runId, told })
  }
  const message = `${limit} is exhausted: this request may need ${needed} ${unit}, and ${remaining} ${unit} are free.`
  const { neverFits = false } = against ?? {}
  const isMoney = refused.measure === 'money'
  // A window of calls or tokens is a rate, and money is not what is missing.
  if (!isMoney && !neverFits && resetsAt !== null) {
    const retryAfterSeconds = secondsUntil(Date.parse(resetsAt), engine.nowMs())
    const remedy = `Wait until ${resetsAt}, or have the limit raised that is named.`
    return new Refusal('busy', message, { callId, figures, retryAfterSeconds, remedy })
  }
  return new Refusal('insufficient_funds', message, {
    callId,
    figures,
    remedy: isMoney && !neverFits ? TOP_UP : RAISE_LIMIT,
  })
}

function secondsUntil(atMs: number, nowMs: number): number {
  return Math.max(1, Math.ceil((atMs - nowMs) / 1_000))
}

function figuresOf(refused: HoldRefusal, against: RefusedAgainst | undefined): RefusalFigures {
  const isMoney = refused.measure === 'money'
  const text = (amount: bigint) => (isMoney ? formatNano(amount) : amount.toString())
  return {
    limit: refused.limit,
    currency: isMoney ? refused.currency : null,
    needed: text(refused.needed),
    spent: against ? text(against.spent) : null,
    held: against ? text(against.held) : null,
    remaining: text(refused.free),
    resetsAt: against?.resetsAt?.toISOString() ?? null,
  }
}

function gateRefusal({ runId }: Payer, { gate, callId }: Extract<NotAnswered, { kind: 'gate' }>): Refusal {
  if (gate === 'frozen') {
    return new Refusal('envelope_frozen', 'The run is paused: its money is frozen.', {
      callId,
      remedy: 'Resume the run, or top it up.',
    })
  }
  if (runId !== null) return new Refusal('envelope_closed', 'The run of this key is over or ending.', { callId })
  return new Refusal('invalid_api_key', 'This API key is unknown or revoked.', { callId })
}

/** By the reason that the engine gives; those that are not listed failed upstream. */
const CODES: Readonly<Record<string, RefusalCode>> = Object.freeze({
  unknown_model: 'model_not_found',
  no_route: 'no_route',
  lacks_choices: 'unsupported_parameter',
  lacks_parameter: 'unsupported_parameter',
  context_too_small: 'context_too_long',
  prompt_too_large: 'prompt_too_large',
  refused_by_provider: 'refused_by_provider',
  repeat_not_allowed: 'repeat_not_allowed',
  answer_not_stored: 'answer_not_stored',
  aborted: 'client_gone',
})
/** What providers refuse for a reason that their clients know how to deal with. */
const CODES_OF_OUTCOMES: Readonly<Record<string, RefusalCode>> = Object.freeze({
  context_too_long: 'context_too_long',
  content_filter: 'content_filter',
})

function codeOf({ reason, outcome = 'lost', isPassing }: Extract<NotAnswered, { kind: 'failed' }>): RefusalCode {
  if (isPassing) return 'upstream_unavailable'
  const isRefused = reason === 'routes_exhausted' || reason === 'refused_by_provider'
  return (isRefused ? CODES_OF_OUTCOMES[outcome] : undefined) ?? CODES[reason] ?? 'upstream_failed'
}

/** What a client can do where the engine has asked and has no answer. */
const REMEDIES: Readonly<Partial<Record<RefusalCode, string>>> = Object.freeze({
  model_not_found: 'GET /v1/models lists what this key may ask for.',
  answer_not_stored: 'Send it with a new Idempotency-Key: it is asked, and paid, again.',
  no_route: 'Ask for another model, or have its routes, or what this key may use of them, changed.',
  prompt_too_large: 'Shorten the prompt, or have the limit raised that is named.',
  context_too_long: 'Shorten the prompt, or ask for a model with a longer context.',
  content_filter: 'Change the prompt: this one would be filtered again.',
  refused_by_provider: 'Correct what the provider names: the same request would be refused again.',
  repeat_not_allowed:
    'What it may have cost is booked. Send it again as a new request, with a new Idempotency-Key if it had one: it may be paid for again.',
  upstream_failed: 'Send the request again later, or ask for another model.',
  upstream_unavailable: 'Send the request again after Retry-After seconds.',
})

/** Until a provider that was away or busy may be there again. */
const PASSING_RETRY_SECONDS = 5

function messageOf(
  model: string,
  code: RefusalCode,
  { reason, detail, param }: { readonly reason: string; readonly detail: string; readonly param: string | undefined },
): string {
  if (code === 'model_not_found') return `There is no model ${model}.`
  if (code === 'unsupported_parameter') return `No route of ${model} takes ${param} as it is sent (${detail}).`
  if (code === 'answer_not_stored') return 'This request was answered, and its answer is not stored any more.'
  return detail === '' ? `${reason}.` : `${reason}: ${detail}.`
}

function failureOf(model: string, result: Extract<NotAnswered, { kind: 'failed' }>): Refusal {
  const { callId, reason, detail, isPassing } = result
  const code = codeOf(result)
  const param = result.parameter ?? (reason === 'lacks_choices' ? 'n' : undefined)
  const message = messageOf(model, code, { reason, detail, param })
  const remedy = REMEDIES[code]
  return new Refusal(code, message, {
    callId,
    ...(param !== undefined && { param }),
    ...(isPassing && { retryAfterSeconds: PASSING_RETRY_SECONDS }),
    ...(code === 'model_not_found' && { param: 'model' }),
    ...(remedy !== undefined && { remedy }),
  })
}
