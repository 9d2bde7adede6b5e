import { sql, type Kysely } from 'kysely'
import type { Finding } from './verify-check.ts'
import type { Database } from './schema.ts'
import { paysForTruth } from './verify-envelopes.ts'

interface Pair {
  readonly parent: string
  readonly child: string
  readonly carved: bigint
  readonly returned: bigint
}

const PAGE = 10_000

/**
 * What went from pocket to pocket, by `debit credit`: each is a parent and its child, within the child's cap, but for what it
 * had spent already.
 */
export async function compareChildren(
  db: Kysely<Database>,
  moved: { readonly carved: ReadonlyMap<string, bigint>; readonly returned: ReadonlyMap<string, bigint> },
): Promise<Finding> {
  const pairs = pairsOf(moved)
  for (let at = 0; at < pairs.length; at += PAGE) {
    const firstWrong = await firstWrongOf(db, pairs.slice(at, at + PAGE))
    if (firstWrong !== null) return { rows: pairs.length, firstWrong }
  }
  return { rows: pairs.length, firstWrong: null }
}

function pairsOf(moved: {
  readonly carved: ReadonlyMap<string, bigint>
  readonly returned: ReadonlyMap<string, bigint>
}): readonly Pair[] {
  return [...moved.carved].map(([key, carved]) => {
    const [parent = '', child = ''] = key.split(' ')
    return { parent, child, carved, returned: moved.returned.get(`${child} ${parent}`) ?? 0n }
  })
}

async function firstWrongOf(db: Kysely<Database>, pairs: readonly Pair[]): Promise<string | null> {
  const column = (of: (pair: Pair) => string) => pairs.map(of)
  const { rows } = await sql<{ id: string; wrong: string }>`
    select * from (
      select m.child as id,
        case
          when c.parent_id is distinct from p.envelope_id then 'was given money by another envelope than its parent'
          when m.returned > m.carved then 'has given its parent ' || m.returned || ' of ' || m.carved
          when m.carved - m.returned > a.cap and m.carved - m.returned > a.cap + (
            select coalesce(sum(t.amount), 0) from transfer t
            where t.code = 'carve' and t.credit_account = m.child and ${paysForTruth}
          ) then 'was given ' || m.carved - m.returned || ', its cap is ' || a.cap
        end as wrong
      from unnest(${column(({ parent }) => parent)}::uuid[], ${column(({ child }) => child)}::uuid[],
        ${column(({ carved }) => carved.toString())}::bigint[],
        ${column(({ returned }) => returned.toString())}::bigint[]) as m(parent, child, carved, returned)
      left join account a on a.id = m.child left join envelope c on c.id = a.envelope_id
      left join account p on p.id = m.parent
    ) checked where wrong is not null order by id limit 1`.execute(db)
  const [first] = rows
  return first ? `account ${first.id}: ${first.wrong}` : null
}
