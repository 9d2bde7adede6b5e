import type { CatalogModel } from '#contracts/catalog.ts'

/** A model as `GET /v1/models/{model}` answers it to OpenAI's clients. */
export function toModel({ name }: CatalogModel): object {
  return { id: name, object: 'model', created: 0, owned_by: 'purser' }
}
