import { anchorHeads, anchorLinesIn } from '#calls/seal-anchor.ts'
import { startSealer } from '#calls/sealer.ts'
import { connectDatabase } from '#db/database.ts'
import { newId } from '#db/ids.ts'
import { deposit } from '#db/ledger.ts'
import { hashOf, termsOf, type BlockHeader } from '#db/seal-block.ts'
import { readBlocks } from '#db/seal-head.ts'
import { sealPublicKeys } from '#db/seal-key.ts'
import { sealOnce } from '#db/seal.ts'
import { verifyLedger } from '#db/verify.ts'
import { sql } from 'kysely'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import pg from 'pg'
import { expect, test } from 'vitest'
import { asAdmin } from '../support/admin.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'
import { useScratchFolder } from '../support/scratch.ts'
import { forge, heights, newKey, pay, resealAll, sealAll, unsealed, wrongChecks } from '../support/seals.ts'
import { createWorld, type World } from '../support/world.ts'

test("the application's role cannot change a seal or forge one out of line", async () => {
  const world = await createWorld()
  await sealAll(world)
  for (const statement of [
    sql`update seal set count = 1`,
    sql`delete from seal`,
    sql`truncate seal`,
    sql`insert into seal select * from seal`,
  ])
    await expect(statement.execute(world.db)).rejects.toThrow(/permission denied/)
  const again = sql`select append_seal(to_jsonb(s)) from seal s`
  await expect(again.execute(world.db)).rejects.toThrow(/does not follow the head/)
  await pay(world)
  const next = (change: string) =>
    sql.raw(`
    select append_seal(to_jsonb(s) || jsonb_build_object('height', s.height + 1, 'previous', s.hash, 'count', 1,
      'first_xid', t.xid, 'first_seq', t.seq, 'last_xid', t.xid, 'last_seq', t.seq) || ${change})
    from seal s, (select xid, seq from transfer order by xid desc, seq desc limit 1) t`)
  const future = `jsonb_build_object('last_xid', (pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 9)::text)`
  for (const [change, says] of [
    [future, /not over/],
    [`'{"count": 2}'`, /other rows than the journal/],
    [`'{"last_seq": 9223372036854775807}'`, /other rows than the journal/],
  ] as const)
    await expect(next(change).execute(world.db)).rejects.toThrow(says)
  const owner = connectDatabase({ url: world.database.ownerUrl, maxConnections: 1 })
  try {
    await expect(sql`delete from seal`.execute(owner)).rejects.toThrow(/append-only/)
  } finally {
    await owner.destroy()
  }
})

test('a sealed row that a superuser edited is found, though all sums are right', async () => {
  const world = await createWorld()
  const { pem, signer } = newKey()
  await sealAll(world, signer)
  await pay(world)
  await sealAll(world, signer)
  expect(await wrongChecks(world, { publicKeys: sealPublicKeys(pem) })).toEqual({})
  await forge(world)
  const wrong = await wrongChecks(world)
  expect(Object.keys(wrong)).toEqual(['seals'])
  expect(wrong['seals']).toContain('block 1: says other rows than the journal')
})

test.each([
  { what: 'a row that was removed', change: `delete from transfer where code = 'deposit'`, sees: 'the journal has' },
  { what: 'a block that was removed', change: 'delete from seal where height = 1', sees: 'block 1: is missing' },
  {
    what: 'a block whose count was edited',
    change: 'update seal set sealed_at = sealed_at + interval $$1 second$$ where height = 1',
    sees: 'block 1: has a hash that is not its own',
  },
])('$what is found', async ({ change, sees }) => {
  const world = await createWorld()
  await sealAll(world)
  await pay(world)
  await sealAll(world)
  await asAdmin(world, async (client) => {
    await client.query('set session_replication_role = replica')
    await client.query(change)
  })
  expect((await wrongChecks(world))['seals']).toContain(sees)
})

test.each([
  { what: 'left unsigned', other: undefined, says: /is not signed/ },
  { what: 'signed with another key', other: newKey().signer, says: /signed with the key/ },
])('an edit whose chain was recomputed and $what is found with the public key', async ({ other, says }) => {
  const world = await createWorld()
  const { pem, signer } = newKey()
  await sealAll(world, signer)
  await forge(world, (client) => resealAll(world, client, other))
  expect(await wrongChecks(world)).toEqual({})
  const wrong = await wrongChecks(world, { publicKeys: sealPublicKeys(pem) })
  expect(Object.keys(wrong)).toEqual(['signatures'])
  expect(wrong['signatures']).toMatch(says)
})

test('a signature that was copied from another block is found', async () => {
  const world = await createWorld()
  const { pem, signer } = newKey()
  await sealAll(world, signer)
  await pay(world)
  await sealAll(world, signer)
  await asAdmin(world, async (client) => {
    await client.query('set session_replication_role = replica')
    await client.query('update seal set signature = (select signature from seal where height = 1) where height = 2')
  })
  const wrong = await wrongChecks(world, { publicKeys: sealPublicKeys(pem) })
  expect(wrong).toEqual({ signatures: 'block 2: has a signature that is not its own' })
})

test('many sealers at once make one chain, and many that anchor write each head once', async () => {
  const world = await createWorld()
  const { pem, signer } = newKey()
  const anchor = join(await useScratchFolder(), 'anchor')
  let isDone = false
  const sealers = Array.from({ length: 6 }, async () => {
    while (!isDone) {
      await sealOnce(world.db, signer)
      await anchorHeads(world.db, anchor)
    }
  })
  try {
    for (let index = 0; index < 20; index += 1) await pay(world)
    await pollUntil(async () => (await unsealed(world)) === 0n, { what: 'the seal', deadlineMs: 20_000 })
  } finally {
    isDone = true
    await Promise.all(sealers)
  }
  await anchorHeads(world.db, anchor)
  const lines = anchorLinesIn(await readFile(anchor, 'utf8'))
  expect(lines.map(({ height }) => BigInt(height))).toEqual(await heights(world))
  expect(await wrongChecks(world, { anchor: lines, publicKeys: sealPublicKeys(pem) })).toEqual({})
})

test('a writer that began before the others and commits after them is waited for, and nothing is lost', async () => {
  const world = await createWorld()
  await sealAll(world)
  const [slow, fast] = await Promise.all([newWallet(world), newWallet(world)])
  const client = new pg.Client(world.database.adminUrl)
  await client.connect()
  try {
    await client.query('begin')
    await client.query('select pg_current_xact_id()')
    await payInto(world, fast)
    await client.query(`select deposit($1, $2, uuidv7(), 'direct', 'USD', 5, 'late')`, [slow.projectId, slow.walletId])
    const before = await heights(world)
    for (let turn = 0; turn < 5; turn += 1) await sealOnce(world.db, undefined)
    expect(await heights(world)).toEqual(before)
    await expectVerified(world)
    await client.query('commit')
  } finally {
    await client.end()
  }
  await sealAll(world)
  expect(await unsealed(world)).toBe(0n)
  await expectVerified(world)
})

interface Wallet {
  readonly projectId: string
  readonly walletId: string
}

/** Of a project of its own: two deposits into one wallet would wait for each other. */
async function newWallet(world: World): Promise<Wallet> {
  const [projectId, walletId] = [newId(Date.now()), newId(Date.now())]
  const organisation = await world.db.selectFrom('organisation').select('id').executeTakeFirstOrThrow()
  const project = { id: projectId, organisation_id: organisation.id, name: projectId }
  await world.db.insertInto('project').values(project).execute()
  await world.db.insertInto('wallet').values({ id: walletId, project_id: projectId }).execute()
  return { projectId, walletId }
}

async function payInto(world: World, { projectId, walletId }: Wallet): Promise<void> {
  const money = { walletId, balanceClass: 'direct', currency: 'USD', amount: 3n, reference: 'early' } as const
  await deposit(world.db, { projectId }, { ...money, id: newId(Date.now()) })
}

test('what a process writes is sealed and anchored while it runs, without anybody asking', async () => {
  const world = await createWorld()
  const folder = await useScratchFolder()
  const { pem } = newKey()
  const settings = { keyFile: join(folder, 'key.pem'), anchorFile: join(folder, 'anchor') }
  await writeFile(settings.keyFile, pem)
  const complaints: string[] = []
  const options = { db: world.db, settings, complain: (sentence: string) => void complaints.push(sentence) }
  const sealer = await startSealer(options)
  try {
    await pay(world)
    await pollUntil(
      async () =>
        anchorLinesIn(await readFile(settings.anchorFile, 'utf8')).length > 0 && (await unsealed(world)) === 0n,
      { what: 'the seal' },
    )
  } finally {
    await sealer.stop()
  }
  expect(complaints).toEqual([])
  const anchor = anchorLinesIn(await readFile(settings.anchorFile, 'utf8'))
  expect(await wrongChecks(world, { anchor, publicKeys: sealPublicKeys(pem) })).toEqual({})
  const missing = startSealer({ ...options, settings: { ...settings, keyFile: join(folder, 'none') } })
  await expect(missing).rejects.toThrow(/PURSER_SEAL_KEY_FILE names/)
})

test('without a key blocks are chained, and verify says that nothing is signed', async () => {
  const world = await createWorld()
  await sealAll(world)
  const { ok, checks } = await verifyLedger(world.db)
  expect(ok).toBe(true)
  expect(checks.find(({ name }) => name === 'signatures')?.note).toBe('no block is signed')
})

test('what a worker has left unsealed for a minute is wrong, unless it is sealed as soon as it can be', async () => {
  const world = await createWorld()
  await asAdmin(world, async (client) => {
    await client.query('set session_replication_role = replica')
    await client.query(`update transfer set recorded_at = recorded_at - interval '2 minutes'`)
    await client.query(`insert into instance (id, kind, host, pid, started_at, lease_until) values (uuidv7(), 'worker', 'w', 1,
      now() - interval '2 minutes', now() + interval '1 hour')`)
  })
  expect((await wrongChecks(world))['seals']).toContain('are not sealed yet')
  const [wrong] = await Promise.all([wrongChecks(world), sealAll(world)])
  expect(wrong).toEqual({})
})

test('the hash of a head covers every field of its block', () => {
  const block: BlockHeader = {
    height: 1n,
    format: 1,
    firstXid: '1',
    firstSeq: '2',
    lastXid: '3',
    lastSeq: '4',
    count: 5,
    digest: Buffer.alloc(32, 1),
    terms: Buffer.alloc(32, 3),
    previous: Buffer.alloc(32, 2),
    sealedAtMicros: '6',
  }
  const changes: readonly Partial<BlockHeader>[] = [
    { height: 2n },
    { format: 2 },
    { firstXid: '9' },
    { firstSeq: '9' },
    { lastXid: '9' },
    { lastSeq: '9' },
    { count: 9 },
    { digest: Buffer.alloc(32, 9) },
    { terms: Buffer.alloc(32, 9) },
    { previous: Buffer.alloc(32, 9) },
    { sealedAtMicros: '9' },
  ]
  const hashes = [block, ...changes.map((change) => ({ ...block, ...change }))].map((each) =>
    hashOf(each).toString('hex'),
  )
  expect(new Set(hashes).size).toBe(changes.length + 1)
})

test('a block of before prices had more components still stands, and a component that was put into one of its prices is found', async () => {
  const world = await createWorld()
  await sealAll(world)
  expect(await heights(world)).toEqual([1n])
  // As the version before wrote it: the same rows, with their terms in the columns that they had.
  const [block] = await readBlocks(world.db, 0n)
  if (!block) throw new Error('no block')
  const { rows: old } = await sql<{ terms: Buffer }>`
    select ${termsOf(1, { after: sql`'0'::xid8`, upTo: sql`${block.lastXid}::text::xid8` })} as terms`.execute(world.db)
  const { terms } = old[0] ?? block
  await asAdmin(world, async (client) => {
    await client.query('set session_replication_role = replica')
    const hash = hashOf({ ...block, format: 1, terms })
    await client.query('update seal set format = 1, terms = $1, hash = $2', [terms, hash])
  })
  await expectVerified(world)
  await pay(world)
  await sealAll(world)
  await expectVerified(world)
  const { rows } = await sql<{ format: number }>`select format from seal order by height`.execute(world.db)
  expect(rows.at(0)?.format).toBe(1)
  expect(rows.at(-1)?.format).toBe(2)
  await asAdmin(world, async (client) => {
    await client.query('set session_replication_role = replica')
    await client.query(`update price set more = '{"perImageNano": "1"}'`)
  })
  expect(Object.keys(await wrongChecks(world))).toContain('seals')
})
