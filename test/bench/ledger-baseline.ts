import { newId } from '#db/ids.ts'
import pg from 'pg'
import { CONNECTIONS } from './ledger-ours.ts'
import type { Contender } from './load.ts'
import { runAll, type BenchDatabase } from './postgres.ts'

/**
 * What the ledger is measured against: a balance and a journal without anything else. `floor` is the least that moves
 * money safely, one statement; `naive` is what is written first, a transaction of five.
 */
export interface Baselines {
  /** Over accounts drawn at random, or one hot account. */
  over(accounts: number): { readonly floor: Contender; readonly naive: Contender }
  stop(): Promise<void>
}

const BALANCE = 1_000_000_000_000_000n
const AMOUNT = 720_000n
const TRANSACTION_TIMEOUT_MS = 5_000
const QUERY_TIMEOUT_MS = 8_000

/** Account rows leave as much room for updates as the ledger's own. */
const TABLES = [
  `create table floor_account (id uuid primary key, balance bigint not null check (balance >= 0)) with (fillfactor = 30)`,
  `create table floor_move (id uuid primary key, account uuid not null, amount bigint not null)`,
  `grant select, insert, update on floor_account, floor_move to purser_app`,
]

const FLOOR =
  'with u as (update floor_account set balance = balance - $2 where id = $1 returning id) insert into floor_move(id, account, amount) select $3, id, $2 from u'

export async function createBaselines(database: BenchDatabase, accounts: number): Promise<Baselines> {
  const ids = Array.from({ length: accounts }, () => newId(Date.now()))
  await runAll(database.adminUrl, [
    ...TABLES,
    `insert into floor_account select id, ${BALANCE} from unnest('{${ids.join(',')}}'::uuid[]) as id`,
    'vacuum analyze floor_account',
  ])
  // The options of `connectDatabase`, so that both pay for the same guards.
  const pool = new pg.Pool({
    connectionString: database.appUrl,
    max: CONNECTIONS,
    keepAlive: true,
    options: `-c transaction_timeout=${TRANSACTION_TIMEOUT_MS}`,
    query_timeout: QUERY_TIMEOUT_MS,
  })
  pool.on('error', () => {})
  return {
    over: (count) => {
      const draw = () => ids[Math.floor(Math.random() * count)]
      return {
        floor: contender('floor', () => floor(pool, draw())),
        naive: contender('naive', () => naive(pool, draw())),
      }
    },
    stop: () => pool.end(),
  }
}

function contender(name: string, next: () => Promise<void>): Contender {
  const caller = { next, finish: async () => undefined }
  return { name, prepare: async () => undefined, caller: () => caller }
}

async function floor(pool: pg.Pool, account: string | undefined): Promise<void> {
  const { rowCount } = await pool.query({ name: 'floor', text: FLOOR, values: [account, AMOUNT, newId(Date.now())] })
  if (rowCount !== 1) throw new Error('the floor moved nothing')
}

async function naive(pool: pg.Pool, account: string | undefined): Promise<void> {
  const client = await pool.connect()
  try {
    await client.query({ name: 'begin', text: 'begin' })
    const { rows } = await client.query<{ balance: string }>({
      name: 'look',
      text: 'select balance from floor_account where id = $1 for update',
      values: [account],
    })
    if (BigInt(rows[0]?.balance ?? 0) < AMOUNT) throw new Error('the account has too little')
    await client.query({
      name: 'write',
      text: 'insert into floor_move(id, account, amount) values ($1, $2, $3)',
      values: [newId(Date.now()), account, AMOUNT],
    })
    await client.query({
      name: 'change',
      text: 'update floor_account set balance = balance - $2 where id = $1',
      values: [account, AMOUNT],
    })
    await client.query({ name: 'commit', text: 'commit' })
    client.release()
  } catch (error) {
    client.release(true)
    throw error
  }
}
