import { planSchema, storedUsage } from '#contracts/stored.ts'
import { correct } from '#db/correction.ts'
import { askableAttempts, keepLookUp, type Askable } from '#db/look-up.ts'
import { chargeOf } from '#domain/pricing.ts'
import type { LookedUp } from '#providers/provider.ts'
import { ledgerId } from './charge.ts'
import type { Engine } from './engine.ts'

/** Requests asked about in one turn, all at once. */
const MOST_ASKED = 50
const TIMEOUT_MS = 10_000
/** Until then a provider that does not know a request may be told of it yet by its own books. In milliseconds. */
const PATIENCE_MS = 600_000

/**
 * Asks providers that can tell what became of requests whose end was not seen (cut, aborted, timed out, lost), or whose
 * answer came without usage. What they say they bill is booked as a correction of the estimate.
 */
export async function lookUpAttempts(engine: Engine): Promise<void> {
  const able = [...engine.providers.values()].filter((provider) => 'lookUp' in provider).map(({ name }) => name)
  if (able.length === 0) return
  const attempts = await askableAttempts(engine.db, { providers: able, limit: MOST_ASKED })
  await Promise.all(attempts.map((attempt) => ask(engine, attempt)))
}

async function ask(engine: Engine, attempt: Askable): Promise<void> {
  const { provider } = planSchema.parse(attempt.plan)
  const asked = engine.providers.get(provider)?.lookUp?.(attempt.requestId, AbortSignal.timeout(TIMEOUT_MS))
  const answer = await asked?.catch(notYet)
  if (answer) await take(engine, attempt, answer)
}

/** A provider that cannot be reached has not answered. */
function notYet(): LookedUp {
  return { kind: 'not_yet' }
}

async function take(engine: Engine, attempt: Askable, answer: LookedUp): Promise<void> {
  const { callId, number } = attempt
  if (answer.kind === 'found') return book(engine, attempt, answer)
  // Who has not answered yet, or cannot be reached, is asked again.
  if (answer.kind === 'not_yet' || attempt.ageMs < PATIENCE_MS) return
  await keepLookUp(engine.db, attempt, { callId, number, answer: answer.kind })
}

async function book(engine: Engine, attempt: Askable, { usage }: Extract<LookedUp, { kind: 'found' }>): Promise<void> {
  const { callId, number, runId } = attempt
  const key = { runId, callId, number }
  // What its provider tells stands over what a late owner estimated: one correction more.
  const [phase, debt] = attempt.isLateEstimate
    ? (['late', 'late_debt'] as const)
    : (['correction', 'correction_debt'] as const)
  const verdict = await correct(engine.db, attempt, {
    holdId: attempt.holdId,
    correctionId: ledgerId(key, phase),
    debtId: ledgerId(key, debt),
    amount: chargeOf(planSchema.parse(attempt.plan).prices, usage),
    tokens: BigInt(usage.input) + BigInt(usage.output),
    certainty: 'billed',
    usage: storedUsage(usage),
    detail: { lookedUp: 'found' },
    answerId: null,
    answer: null,
  })
  // Its owner came late, and has told it: then there is nothing more to be asked. Another process may have asked, too.
  if (verdict !== 'corrected' && verdict !== 'replayed')
    await keepLookUp(engine.db, attempt, { callId, number, answer: verdict })
}
