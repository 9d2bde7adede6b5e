import { ledgerId } from '#calls/charge.ts'
import type { Engine } from '#calls/engine.ts'
import { lookUpAttempts } from '#calls/look-up.ts'
import { storedUsage } from '#contracts/stored.ts'
import { correct } from '#db/correction.ts'
import { NO_USAGE } from '#domain/pricing.ts'
import { expect } from 'vitest'
import { attemptsOf, type BookedAttempt } from './fault-world.ts'
import { pollUntil } from './poll.ts'
import type { TestRun, World } from './world.ts'

/**
 * Asks the provider, and takes from its bill what it does not tell when it is asked; then no attempt differs any more from
 * what is owed for it.
 */
export async function reconcileWithBill(
  world: World,
  engine: Engine,
  { runs, owedOf }: { readonly runs: readonly TestRun[]; readonly owedOf: (attempt: BookedAttempt) => bigint },
): Promise<void> {
  const differing = async () => {
    const attempts = (await Promise.all(runs.map((run) => attemptsOf(world, run)))).flat()
    return attempts.filter((attempt) => attempt.charged !== owedOf(attempt))
  }
  const canTell = [...engine.providers.values()].some((provider) => 'lookUp' in provider)
  await pollUntil(
    async () => {
      await lookUpAttempts(engine)
      const left = canTell ? await Promise.all((await differing()).map((attempt) => isTold(world, attempt))) : []
      return left.every((each) => !each)
    },
    { what: 'the provider told all that it can tell' },
  )
  for (const attempt of await differing()) await bookBill(world, attempt)
  expect(await differing()).toEqual([])
}

/** Whether the provider can tell what it was, and what it cost was not known for sure. */
async function isTold(world: World, attempt: BookedAttempt): Promise<boolean> {
  const { certainty, seen } = attempt
  if (certainty === null || certainty === 'billed' || seen?.begun !== true) return false
  const { detail } = await rowOf(world, attempt)
  return JSON.stringify(detail).includes('"providerRequestId":"')
}

/** As a person does who has the bill before him. */
async function bookBill(world: World, attempt: BookedAttempt): Promise<void> {
  const { hold_id: holdId, account_id: accountId, run_id: runId } = await rowOf(world, attempt)
  const key = { runId, callId: attempt.callId, number: attempt.number }
  const { promptTokens: input = 0, completionTokens: output = 0 } = attempt.seen?.usage ?? {}
  const verdict = await correct(
    world.db,
    { ...world.scope, accountId },
    {
      holdId,
      correctionId: ledgerId(key, 'correction'),
      debtId: ledgerId(key, 'correction_debt'),
      amount: attempt.billed,
      tokens: BigInt(input + output),
      certainty: 'billed',
      usage: storedUsage({ ...NO_USAGE, input, output }),
      detail: null,
      answerId: null,
      answer: null,
    },
  )
  expect(verdict).toBe('corrected')
}

function rowOf(world: World, { callId, number }: BookedAttempt) {
  return world.db
    .selectFrom('attempt')
    .selectAll()
    .where('call_id', '=', callId)
    .where('number', '=', number)
    .executeTakeFirstOrThrow()
}
