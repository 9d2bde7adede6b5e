import { openChild } from '#db/envelope.ts'
import { newId } from '#db/ids.ts'
import { closeEnvelope } from '#db/ledger.ts'
import { createQuote } from '#db/quote.ts'
import { verifyLedger } from '#db/verify.ts'
import type pg from 'pg'
import { expect, test } from 'vitest'
import { asAdmin } from '../support/admin.ts'
import { createLimitWorld } from '../support/limits.ts'
import { tellMoneyStory } from '../support/money-story.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { sealAll, wrongChecks } from '../support/seals.ts'
import { CAPTURE, createBusyWorld, tamper, WITHOUT_CHECKS } from '../support/tamper.ts'

test.each([
  {
    what: 'a price that is no id',
    change: `update attempt set plan = jsonb_set(plan, '{priceId}', '"zzz"')`,
    wrong: { prices: expect.stringMatching(/^attempt .*: its price is missing/) },
  },
  {
    what: 'tokens that are no number',
    change: `update attempt set usage = jsonb_set(usage, '{input}', '"zzz"')`,
    wrong: { prices: expect.stringMatching(/^attempt .*what it used is not known/) },
  },
  {
    what: 'a moment that never comes',
    change: `update transfer set recorded_at = 'infinity' where id = ${CAPTURE}`,
    wrong: { seals: expect.stringContaining('says other rows') },
  },
  {
    what: 'a version that no number precedes',
    change: `update transfer set debit_version = -9223372036854775808 where id = ${CAPTURE}`,
    wrong: {
      journal: expect.stringMatching(/^transfer .*: bigint out of range/),
      seals: expect.stringContaining('says other rows'),
    },
  },
  {
    what: 'an account with more than there are numbers',
    change: `update account set posted_credit = 9223372036854775807, posted_debit = -1 where kind = 'wallet'`,
    wrong: { fold: expect.stringContaining('a row that cannot be read: bigint out of range') },
  },
  {
    what: 'a call that has its answer of itself',
    change: `insert into call (id, project_id, run_id, envelope_id, api_key_id, path, digest, model, catalog_version,
        request_id, state, answer_id, reused_from, answered_at)
      select uuid_nil, project_id, run_id, envelope_id, api_key_id, 'x', digest, model, catalog_version,
        request_id, state, answer_id, uuid_nil, answered_at
      from call, (values ('00000000-0000-0000-0000-000000000000'::uuid)) as v(uuid_nil) where state = 'answered' limit 1`,
    wrong: { answers: expect.stringMatching(/has the answer of a call that has another/) },
  },
  {
    what: 'a block that was sealed at no time',
    change: `update seal set sealed_at = 'infinity'`,
    wrong: { seals: expect.stringContaining('a hash that is not its own') },
  },
])('$what is one wrong row, and no end of the verification', async ({ change, wrong }) => {
  const world = await createBusyWorld()
  await sealAll(world)
  await tamper(world, change)
  expect(await wrongChecks(world)).toMatchObject(wrong)
  expect((await verifyLedger(world.db)).checks.length).toBeGreaterThan(14)
})

interface Edit {
  readonly table: string
  readonly column: string
  readonly value: string
  /** Which row, of several. */
  readonly where?: string
  /** Which check finds it, and what it says; without one only the seals do. */
  readonly check?: string
  readonly says?: RegExp
}

const CNY = `sell_currency = 'CNY'`
const EXCHANGED = `code = 'top_up' and quote_id is not null and debit_version is null`

/** What stands beside the sums, table by table. The row is named as soon as it is written, sealed or not. */
const named: readonly Edit[] = [
  { table: 'account', column: 'wallet_id', value: 'uuidv7()', where: `kind = 'wallet'`, check: 'accounts' },
  { table: 'account', column: 'wallet_id', value: 'null', where: `kind = 'wallet'`, check: 'accounts' },
  { table: 'account', column: 'envelope_id', value: 'uuidv7()', where: `kind = 'pocket'`, check: 'accounts' },
  { table: 'account', column: 'balance_class', value: 'null', where: `kind = 'pocket'`, check: 'accounts' },
  {
    table: 'account',
    column: 'balance_class',
    value: `'credit'`,
    where: `kind = 'pocket' and carved > 0`,
    check: 'accounts',
    says: /was given money of another balance/,
  },
  {
    table: 'account',
    column: 'balance_class',
    value: `'direct'`,
    where: `kind = 'wallet' and balance_class = 'credit' and currency = 'CNY'`,
    check: 'lots',
    says: /has lots, and is not of credit/,
  },
  { table: 'account', column: 'pending_credit', value: 'pending_credit + 1', check: 'accounts' },
  { table: 'account', column: 'posted_debit', value: '5', where: `kind = 'outside'`, check: 'accounts' },
  { table: 'account', column: 'carved', value: 'carved + 1', where: `kind = 'pocket'`, check: 'accounts' },
  { table: 'account', column: 'carved', value: 'carved - 1', where: `carved > 0`, check: 'accounts' },
  { table: 'account', column: 'cap', value: '1', where: `carved > 1`, check: 'accounts' },
  { table: 'account', column: 'gate', value: `'frozen'`, where: `kind = 'wallet'`, check: 'accounts' },
  { table: 'lot', column: 'account_id', value: 'uuidv7()', check: 'lot owners' },
  { table: 'lot', column: 'project_id', value: 'uuidv7()', check: 'lot owners' },
  { table: 'envelope', column: 'project_id', value: 'uuidv7()', check: 'envelopes' },
  { table: 'envelope', column: 'wallet_id', value: 'uuidv7()', check: 'envelopes' },
  { table: 'envelope', column: 'api_key_id', value: 'uuidv7()', check: 'envelopes' },
  { table: 'envelope', column: 'subjects', value: `'{}'`, check: 'envelopes' },
  {
    table: 'envelope',
    column: 'closed_at',
    value: `closed_at - interval '1 day'`,
    where: `gate = 'closed'`,
    check: 'envelopes',
    says: /was closed before its last movement/,
  },
  { table: 'call', column: 'project_id', value: 'uuidv7()', check: 'calls' },
  { table: 'call', column: 'run_id', value: 'uuidv7()', check: 'calls' },
  { table: 'call', column: 'envelope_id', value: 'uuidv7()', check: 'calls' },
  { table: 'call', column: 'api_key_id', value: 'uuidv7()', check: 'calls' },
  { table: 'call', column: 'answered_at', value: 'null', where: `state = 'answered'`, check: 'calls' },
  { table: 'attempt', column: 'project_id', value: 'uuidv7()', check: 'attempts' },
  { table: 'attempt', column: 'resolved_at', value: 'null', where: `state = 'resolved'`, check: 'attempts' },
  { table: 'attempt', column: 'usage', value: 'null', where: `outcome = 'answered'`, check: 'prices' },
  ...['prices', 'currency', 'provider', 'upstreamModel', 'balanceClass', 'priceId'].map((key) => ({
    table: 'attempt',
    column: 'plan',
    value: `jsonb_set(plan, '{${key}}', '"other"')`,
    where: `outcome = 'answered'`,
    check: 'prices',
  })),
  { table: 'price', column: 'per_call_nano', value: '1', where: `upstream_model = 'sandbox-steady'`, check: 'prices' },
  { table: 'transfer', column: 'quote_id', value: 'uuidv7()', where: EXCHANGED, check: 'fundings' },
  { table: 'transfer', column: 'quote_id', value: 'null', where: EXCHANGED, check: 'fundings' },
  { table: 'transfer', column: 'run_id', value: 'uuidv7()', where: `code = 'top_up'`, check: 'fundings' },
  { table: 'transfer', column: 'envelope_id', value: 'uuidv7()', where: `code = 'carve'`, check: 'fundings' },
  { table: 'transfer', column: 'reference', value: 'null', where: `code = 'deposit'`, check: 'fundings' },
  { table: 'transfer', column: 'reverses', value: 'uuidv7()', where: `code = 'reversal'`, check: 'fundings' },
  { table: 'transfer', column: 'certainty', value: 'null', where: `code = 'correction'`, check: 'fundings' },
  { table: 'transfer', column: 'certainty', value: 'null', where: `code = 'capture'`, check: 'attempts' },
  {
    table: 'quote',
    column: 'buy',
    value: 'buy + 1',
    where: CNY,
    check: 'fundings',
    says: /bought \d+ for \d+, at a rate of/,
  },
  { table: 'quote', column: 'sell_currency', value: `'JPY'`, where: CNY, check: 'fundings' },
  { table: 'usage_limit', column: 'cap', value: 'cap + 1', check: 'caps' },
  { table: 'usage_limit', column: 'retired_at', value: 'now()', check: 'caps' },
  { table: 'limit_change', column: 'cap', value: 'cap + 1', check: 'caps' },
  { table: 'usage_limit', column: 'thresholds', value: `'{80}'`, check: 'caps', says: /has the thresholds \{80\}/ },
  { table: 'limit_change', column: 'thresholds', value: `'{80}'`, check: 'caps', says: /it was given \{80\}/ },
  { table: 'lease', column: 'leased', value: 'leased + 100000000000000', check: 'limits', says: /of a cap of/ },
  { table: 'lease', column: 'measure', value: `'calls'`, check: 'lessees' },
  { table: 'lease', column: 'envelope_id', value: 'uuidv7()', check: 'lessees' },
]

/** What nothing can be computed from: it is sealed with the journal. */
const sealed: readonly Edit[] = [
  { table: 'price', column: 'effective_at', value: `effective_at - interval '1 day'` },
  { table: 'price', column: 'output_nano_per_million', value: '1', where: `upstream_model = 'sandbox-busy'` },
  { table: 'quote', column: 'expires_at', value: 'now()' },
  { table: 'quote', column: 'sell', value: '1', where: `sell_currency = 'EUR'` },
  { table: 'lot', column: 'priority', value: 'priority + 1' },
  { table: 'lot', column: 'expires_at', value: 'now()' },
  { table: 'lot', column: 'source', value: `'other'` },
  { table: 'limit_change', column: 'api_key_id', value: 'uuidv7()' },
  { table: 'usage_limit', column: 'set_by', value: 'uuidv7()' },
  { table: 'usage_limit', column: 'period', value: `'hour'` },
  { table: 'account', column: 'cap', value: 'cap + 1', where: 'cap is not null' },
  { table: 'account', column: 'made_in', value: `'9223372036854775807'` },
  { table: 'envelope', column: 'subjects', value: 'subjects || uuidv7()' },
  { table: 'catalog', column: 'document', value: `'{}'` },
]

test('an edit of what stands beside the sums is found, table by table, and the row is named', async () => {
  const world = await createLimitWorld()
  await world.limit({ cap: 10_000_000_000n })
  await world.limit({ measure: 'tokens', currency: null, cap: 10_000_000_000n, period: 'life' })
  await tellMoneyStory(world)
  const unused = { sellCurrency: 'EUR', sell: 9n, buyCurrency: 'USD', buy: 10n, source: 'bank' } as const
  const times = { effectiveAt: null, expiresAt: null, nowMs: Date.now() }
  await createQuote(world.db, world.organisationId, { ...unused, ...times })
  const envelope = await world.openEnvelope()
  await envelope.settle(await envelope.hold(), { amount: 7n, tokens: 50n })
  const capped = {
    id: newId(Date.now()),
    balanceClass: 'direct',
    currency: 'USD',
    amount: 1_000n,
    cap: 2_000n,
  } as const
  const child = { parentId: envelope.id, envelopeId: newId(Date.now()), runId: null, kind: 'child' } as const
  expect(await openChild(world.db, world.scope, { ...child, carvings: [capped] })).toBeUndefined()
  const over = await world.openEnvelope()
  await closeEnvelope(world.db, world.scope, { envelopeId: over.id, reason: 'over' })
  await asAdmin(world, async (client) => {
    await client.query('set session_replication_role = replica')
    await client.query(WITHOUT_CHECKS)
    for (const edit of named)
      expect(await whatIsSaidOf(world, client, edit), JSON.stringify(edit)).toEqual(wrongOf(edit))
    await expectVerified(world)
    await sealAll(world)
    for (const edit of sealed) {
      const said = await whatIsSaidOf(world, client, edit)
      expect(said, JSON.stringify(edit)).toEqual({ seals: expect.stringMatching(/^block \d+: says other prices/) })
    }
    await expectVerified(world)
  })
})

/** What each check calls the rows that it looks at. */
const ROWS: Readonly<Record<string, string>> = {
  accounts: 'account',
  attempts: 'attempt',
  calls: 'call',
  caps: 'limit',
  envelopes: 'envelope',
  fundings: 'transfer',
  lessees: 'lease',
  limits: 'limit',
  'lot owners': 'lot',
  lots: 'account',
  prices: 'attempt',
}

function wrongOf({ check = '', says = /./ }: Edit): unknown {
  return expect.objectContaining({ [check]: expect.stringMatching(new RegExp(`^${ROWS[check]} .*${says.source}`)) })
}

/** Edits one row, verifies, and puts the row back. */
async function whatIsSaidOf(
  world: Parameters<typeof wrongChecks>[0],
  client: pg.Client,
  { table, column, value, where = 'true' }: Edit,
): Promise<Record<string, string | null>> {
  const { rows } = await client.query<{ at: string; was: string }>(`
    with picked as (select ctid as at, ${column} as was from ${table} where ${where} order by ctid limit 1)
    update ${table} t set ${column} = ${value} from picked where t.ctid = picked.at
    returning t.ctid::text as at, picked.was::text as was`)
  const [edited] = rows
  if (!edited) throw new Error(`no row of ${table} is such that ${where}`)
  try {
    return await wrongChecks(world)
  } finally {
    await client.query(
      `update ${table} set ${column} = $2::text::${await typeOf(client, table, column)} where ctid = $1::tid`,
      [edited.at, edited.was],
    )
  }
}

async function typeOf(client: pg.Client, table: string, column: string): Promise<string> {
  const { rows } = await client.query<{ type: string }>(
    `select format_type(atttypid, atttypmod) as type from pg_attribute where attrelid = $1::regclass and attname = $2`,
    [table, column],
  )
  return rows[0]?.type ?? ''
}
