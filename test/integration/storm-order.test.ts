import { connectDatabase } from '#db/database.ts'
import { post } from '#db/hold.ts'
import type { Database } from '#db/schema.ts'
import { sql, type Kysely } from 'kysely'
import { expect, onTestFinished, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { seeded } from '../support/seeded.ts'
import { holdOf, openCalls, pocketOf, registerForAnHour } from '../support/storm.ts'
import { createWorld } from '../support/world.ts'

const WRITERS = 8
const ROWS_EACH = 40

/** A place in the journal, and how its readers go on from it. */
interface Row {
  readonly id: string
  readonly xid: string
  readonly seq: string
}

interface Reader {
  readonly seen: string[]
  readNext(db: Kysely<Database>): Promise<void>
}

const settled = sql`xid < pg_snapshot_xmin(pg_current_snapshot())`

function createReader(order: 'by xid and seq' | 'by seq, settled' | 'by seq'): Reader {
  let last: Row = { id: '', xid: '0', seq: '0' }
  const seen: string[] = []
  const after =
    order === 'by xid and seq'
      ? () => sql`(xid, seq) > (${last.xid}::xid8, ${last.seq}::bigint) and ${settled} order by t.xid, t.seq`
      : order === 'by seq'
        ? () => sql`seq > ${last.seq}::bigint order by t.seq`
        : () => sql`seq > ${last.seq}::bigint and ${settled} order by t.seq`
  return {
    seen,
    async readNext(db) {
      const { rows } = await sql<Row>`
        select id, xid::text as xid, seq::text as seq from transfer t where code = 'hold' and ${after()} limit 25`.execute(
        db,
      )
      seen.push(...rows.map(({ id }) => id))
      last = rows.at(-1) ?? last
    },
  }
}

async function createWriters(count: number, rows: number) {
  const world = await createWorld()
  const instanceId = await registerForAnHour(world.db)
  const db = connectDatabase({ url: world.database.appUrl, maxConnections: count })
  onTestFinished(() => db.destroy())
  const writers = await Promise.all(
    Array.from({ length: count }, async () => {
      const run = await world.openRun({ direct: 1_000_000n })
      const pocket = await pocketOf(world.db, world.scope, { ...run, balanceClass: 'direct' })
      const items = (await openCalls(world.db, world.scope, { ...run, count: rows })).map((call) => holdOf(call, 1n))
      return items.map(
        (item) => (trx: Kysely<Database>) => post(trx, { instanceId, settles: [], reserves: [{ pocket, item }] }),
      )
    }),
  )
  return { world, db, writers }
}

test('of eight writers at once, some of them slow, a reader by (xid, seq) loses nothing and sees nothing twice', async () => {
  const { world, db, writers } = await createWriters(WRITERS, ROWS_EACH)
  const random = seeded(11)
  const readers = [createReader('by xid and seq'), createReader('by seq')]
  let isWriting = true
  const writing = Promise.all(
    writers.map(async (holds) => {
      for (const hold of holds) {
        await db.transaction().execute(async (trx) => {
          await hold(trx)
          // Some keep their transaction open over more statements, as a command with its event does.
          for (let more = random(4) === 0 ? random(40) : 0; more > 0; more -= 1) await sql`select 1`.execute(trx)
        })
      }
    }),
  ).finally(() => {
    isWriting = false
  })
  while (isWriting) await Promise.all(readers.map((reader) => reader.readNext(world.db)))
  await writing
  const [careful, careless] = readers
  if (!careful || !careless) throw new Error('no readers')
  await pollUntil(
    async () => {
      await careful.readNext(world.db)
      return careful.seen.length >= WRITERS * ROWS_EACH
    },
    { what: 'the last rows to be settled' },
  )
  const all = await world.db.selectFrom('transfer').select('id').where('code', '=', 'hold').execute()
  expect(careful.seen.toSorted()).toEqual(all.map(({ id }) => id).toSorted())
  // By `seq` alone nothing comes twice either, but what committed late is gone for good.
  expect(new Set(careless.seen).size).toBe(careless.seen.length)
  expect(careless.seen.length).toBeLessThan(all.length)
})

test('an order by seq loses what commits late, even where only settled rows are read; by (xid, seq) nothing is lost', async () => {
  const { world, db, writers } = await createWriters(2, 1)
  const [[early] = [], [late] = []] = writers
  if (!early || !late) throw new Error('no writers')
  const readers = {
    careful: createReader('by xid and seq'),
    settled: createReader('by seq, settled'),
    careless: createReader('by seq'),
  }
  const readAll = () => Promise.all(Object.values(readers).map((reader) => reader.readNext(world.db)))
  const first = await db.startTransaction().execute()
  const second = await db.startTransaction().execute()
  // The first has the smaller xid and the larger seq.
  await sql`select pg_current_xact_id()`.execute(first)
  await late(second)
  await early(first)
  await first.commit().execute()
  await pollUntil(
    async () => {
      await readAll()
      return readers.careful.seen.length === 1
    },
    { what: 'the first row' },
  )
  await second.commit().execute()
  await pollUntil(
    async () => {
      await readAll()
      return readers.careful.seen.length === 2
    },
    { what: 'the second row' },
  )
  const ids = await world.db
    .selectFrom('transfer')
    .select('id')
    .where('code', '=', 'hold')
    .orderBy('seq', 'desc')
    .execute()
  expect(readers.careful.seen).toEqual(ids.map(({ id }) => id))
  expect(readers.settled.seen).toHaveLength(1)
  expect(readers.careless.seen).toHaveLength(1)
})
