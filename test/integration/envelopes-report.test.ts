import { newId } from '#db/ids.ts'
import { closeEnvelope } from '#db/ledger.ts'
import { readReport } from '#db/report.ts'
import { getRun } from '#db/run-read.ts'
import { expect, test } from 'vitest'
import { createLedgerWorld, type Purse } from '../support/envelopes.ts'
import { expectVerified } from '../support/open-attempt.ts'

test('the report of a run and its view say what is in child runs, and count its own wrap-up reserve once', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const runId = root.runId ?? ''
  const close = ({ envelopeId }: Purse) => closeEnvelope(world.db, world.scope, { envelopeId, reason: 'test' })
  const reserve = await world.openBelow(root, { amount: 20n, kind: 'wrap_up' })
  const child = await world.openBelow(root, { amount: 30n, runId: newId(Date.now()) })
  await world.settle(child, await world.hold(child, 30n), 10n)
  await world.settle(reserve, await world.hold(reserve, 20n), 5n)
  await world.hold(root, 7n)
  const pocketOf = async () => {
    const report = await readReport(world.db, world.scope, runId)
    const view = await getRun(world.db, world.scope, runId)
    expect(view.envelope.pockets).toEqual(report?.envelope.pockets)
    const [pocket] = view.envelope.pockets
    return [pocket?.funded, pocket?.spent, pocket?.held, pocket?.inChildren, pocket?.free].map((each) => each?.amount)
  }
  expect(await pocketOf()).toEqual(['0.0000001', '0.000000005', '0.000000007', '0.00000003', '0.000000058'])
  expect(await close(child)).toBe('closed')
  expect(await close(reserve)).toBe('closed')
  expect(await pocketOf()).toEqual(['0.0000001', '0.000000005', '0.000000007', '0.00000001', '0.000000078'])
  await expectVerified(world)
})
