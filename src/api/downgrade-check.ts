import { Problem } from '#contracts/codes.ts'
import type { Scope } from '#db/database.ts'
import type { Database } from '#db/schema.ts'
import { isStepDown, type PaidRoute } from '#domain/downgrade.ts'
import type { Kysely } from 'kysely'
import { checkMoneyPath, routesFor, type AskedRun, type ModelRoutes } from './money-path.ts'

/**
 * What a run goes on with when its money has ended has to be there, priced and payable too, and to offer something that
 * the run could not afford to try before.
 *
 * @param models catalog models that the run is going to ask, its own first
 */
export async function checkDowngrade(
  db: Kysely<Database>,
  scope: Scope,
  asked: AskedRun,
  models: readonly string[],
): Promise<void> {
  const { downgrade, model, constraints } = asked.request
  if (!downgrade) return
  const request = {
    ...asked.request,
    model: downgrade.model ?? model,
    constraints: downgrade.constraints ?? constraints,
  }
  const downgraded = { ...asked, request }
  await checkDowngraded(() => checkMoneyPath(db, scope, downgraded))
  for (const name of models) {
    const before = paidRoutes(await routesFor(db, scope, asked, name))
    const after = paidRoutes(await routesFor(db, scope, downgraded, downgrade.model ?? name))
    if (isStepDown(before, after)) return
  }
  throw new Problem(
    'downgrade_not_cheaper',
    `Once it is downgraded to ${request.model}, no route costs less than what the run has tried before out of the same money.`,
    {
      remedy:
        'Downgrade to a model or constraints with a cheaper route, or to the credit balance alone, or choose ' +
        '`onExhausted: pause` or `cancel`.',
    },
  )
}

async function checkDowngraded(check: () => Promise<void>): Promise<void> {
  try {
    await check()
  } catch (error) {
    if (!(error instanceof Problem)) throw error
    const { code, message, remedy, extra } = error
    throw new Problem(code, `Once it is downgraded: ${message}`, { ...(remedy !== undefined && { remedy }), extra })
  }
}

function paidRoutes({ candidates, sold }: ModelRoutes): readonly PaidRoute[] {
  return candidates.flatMap((route) => {
    const price = sold.get(route)
    const { balanceClass, currency } = route
    return price?.ok ? [{ balanceClass, currency, prices: price.price.prices }] : []
  })
}
