import { sql, type Expression, type Kysely, type RawBuilder } from 'kysely'
import type { Scope } from './database.ts'
import type { Database } from './schema.ts'

/** One step from a pocket to the root of its tree. `room`: what it may still be given, null for no cap. */
interface Hop {
  readonly free: bigint
  readonly room: bigint | null
  readonly wallet: bigint | null
}

/**
 * What a pocket could pay now, in nano: its free money and what it may still be given from above, by its parents within its
 * caps, or by its wallet when it is a key's. A look, not a promise: only a hold is one.
 */
export async function freeFor(db: Kysely<Database>, scope: Scope, accountId: string): Promise<bigint> {
  const { rows } = await sql<Hop>`
    /* prepared: free_for */ select free, room, wallet from money_within_reach(array[${accountId}]::uuid[])
    where project_id = ${scope.projectId} order by hop`.execute(db)
  return reachOf(rows)
}

/** What the first of these hops can pay, where each may be given what is behind it. */
function reachOf(hops: readonly Hop[]): bigint {
  return hops.reduceRight((above, { free, room, wallet }) => {
    const reachable = above + (wallet ?? 0n)
    return free + (room !== null && room < reachable ? room : reachable)
  }, 0n)
}

/** A hop in JSON, whose numbers would not hold money. */
export type HopRow = readonly [accountId: string, free: string, room: string | null, wallet: string | null]

/**
 * The hops of some pockets, for a statement that moves their money: `moved`, which it returns, makes them looked up behind it.
 */
export function reachAfter(
  moved: Expression<unknown>,
  accounts: readonly string[],
): RawBuilder<readonly HopRow[] | null> {
  return sql`case when ${moved} is not null then (
    select json_agg(json_build_array(account_id, free::text, room::text, wallet::text) order by account_id, hop)
    from money_within_reach(${accounts}::uuid[])) end`
}

/** What each of those pockets can pay, in nano, by its id. */
export function reachByPocket(rows: readonly HopRow[]): ReadonlyMap<string, bigint> {
  const nano = (text: string | null) => (text === null ? null : BigInt(text))
  const hops = Map.groupBy(rows, ([accountId]) => accountId)
  return new Map(
    Array.from(hops, ([accountId, some]) => [
      accountId,
      reachOf(some.map(([, free, room, wallet]) => ({ free: BigInt(free), room: nano(room), wallet: nano(wallet) }))),
    ]),
  )
}
