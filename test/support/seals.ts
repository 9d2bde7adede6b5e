import { newId } from '#db/ids.ts'
import { deposit } from '#db/ledger.ts'
import { sealSigner, type SealSigner } from '#db/seal-key.ts'
import { sealOnce } from '#db/seal.ts'
import { verifyLedger, type VerifyOptions } from '#db/verify.ts'
import { sql } from 'kysely'
import { generateKeyPairSync } from 'node:crypto'
import type pg from 'pg'
import { asAdmin } from './admin.ts'
import { pollUntil } from './poll.ts'
import type { World } from './world.ts'

export function newKey(): { readonly pem: string; readonly signer: SealSigner } {
  const { privateKey } = generateKeyPairSync('ed25519')
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  return { pem, signer: sealSigner(pem) }
}

export async function pay(world: World, amount = 7n): Promise<void> {
  const wallet = await world.db.selectFrom('wallet').select('id').executeTakeFirstOrThrow()
  const reference = newId(Date.now())
  const money = { walletId: wallet.id, balanceClass: 'direct', currency: 'USD', amount, reference } as const
  await deposit(world.db, world.scope, { ...money, id: newId(Date.now()) })
}

/** Blocks ripen: waits until everything that was written is sealed. */
export async function sealAll(world: World, signer?: SealSigner): Promise<void> {
  await pollUntil(
    async () => {
      await sealOnce(world.db, signer)
      return (await unsealed(world)) === 0n
    },
    { what: 'the seal' },
  )
}

export async function unsealed(world: World): Promise<bigint> {
  const { rows } = await sql<{ count: bigint }>`
    select (select count(*) from transfer) - coalesce((select sum(count) from seal), 0)::bigint as count`.execute(
    world.db,
  )
  return rows[0]?.count ?? -1n
}

export async function wrongChecks(world: World, options: VerifyOptions = {}): Promise<Record<string, string | null>> {
  const { checks } = await verifyLedger(world.db, options)
  return Object.fromEntries(checks.filter(({ ok }) => !ok).map(({ name, firstWrong }) => [name, firstWrong]))
}

export async function heights(world: World): Promise<readonly bigint[]> {
  const { rows } = await sql<{ height: bigint }>`select height from seal order by height`.execute(world.db)
  return rows.map(({ height }) => height)
}

/** Changes a row that no movement of money depends on, so that only the seals can tell. */
const FORGERY = `update transfer set recorded_at = recorded_at - interval '1 day', reference = 'other' where id =
  (select id from transfer where code = 'deposit' order by xid, seq limit 1)`

export async function forge(world: World, then: (client: pg.Client) => Promise<void> = async () => {}): Promise<void> {
  await asAdmin(world, async (client) => {
    await client.query('set session_replication_role = replica')
    await client.query(FORGERY)
    await then(client)
  })
}

/** Seals everything anew after an edit, as someone could who has the database and knows how it is done. */
export async function resealAll(world: World, client: pg.Client, signer?: SealSigner): Promise<void> {
  await client.query('delete from seal')
  await client.query('set session_replication_role = origin')
  await sealAll(world, signer)
}
