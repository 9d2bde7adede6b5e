import type { Engine } from '#calls/engine.ts'
import type { Payer, Payers, ProjectCaller } from './payer.ts'
import type { KeyDesk } from './key-desk.ts'
import type { CatalogModel } from '#contracts/catalog.ts'
import { Refusal } from './refusal.ts'

/** What the surfaces share: they construct nothing. */
export interface GatewayDeps {
  readonly engine: Engine
  readonly keys: KeyDesk
  readonly payers: Payers
  /** How long a stream may be silent. */
  readonly keepAliveMs: number
}

/** Who pays for a model, and the model. @throws Refusal */
export async function payerFor(
  deps: GatewayDeps,
  caller: ProjectCaller,
  name: string,
): Promise<{ readonly payer: Payer; readonly model: CatalogModel }> {
  const model = await modelFor(deps, caller, name)
  return { payer: await deps.payers.of(caller, model), model }
}

/** A model that a key may ask for. @throws Refusal */
export async function modelFor({ engine }: GatewayDeps, caller: ProjectCaller, name: string): Promise<CatalogModel> {
  const { catalog } = await engine.shelf.newest()
  const model = catalog.models.find((each) => each.name === name)
  if (!model || !mayUse(caller, name)) {
    throw new Refusal('model_not_found', `There is no model ${name} for this key.`, {
      param: 'model',
      remedy: 'GET /v1/models lists what this key may ask for.',
    })
  }
  return model
}

/** Whether the constraints of a key, and of its run, let it ask for a model at all. */
export function mayUse({ bounds }: ProjectCaller, model: string): boolean {
  return bounds.every(({ models }) => models?.includes(model) ?? true)
}
