export { map } from './map.ts'
export { research } from './research.ts'
